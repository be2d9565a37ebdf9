# FacT's, Convpass's and RepAdapter's recipe for VTAB-1k: SPT's, with a cosine that ends at 1e-5. They choose s, and
# the best of ten epochs, by the test set; here s is 1, and the last epoch counts.
_base_ = 'vtab_100e.py'
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(eta_min=1e-5)
