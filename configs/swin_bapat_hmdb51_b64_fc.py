_base_ = 'swin_bapat_hmdb51_b64.py'
model = dict(petl=dict(train=['head']))  # the classification layer is trained here
