# Harder: a second digit moves straight on, there is noise, and no frame tells its time
_base_ = 'order_motion.py'
_data = dict(data_prefix=dict(video='data/order/clutter'))
_data.update(metainfo=dict(classes='data/order/clutter/target_classes.txt'))
train_dataloader = dict(dataset=dict(ann_file='data/order/clutter/target_train.txt', **_data))
val_dataloader = dict(dataset=dict(ann_file='data/order/clutter/target_train.txt', **_data))
test_dataloader = dict(dataset=dict(ann_file='data/order/clutter/target_test.txt', **_data))
