_base_ = 'swin_bapat_hmdb51_b128_f16.py'
model = dict(petl=dict(train=['head']))  # the classification layer is trained here
