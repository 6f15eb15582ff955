# Revisited Paris: DATA_ROOT is the folder that holds `rparis6k/`; else as Revisited Oxford.
_base_ = './revisited_oxford_1024.py'
test_dataloader = dict(dataset=dict(type='RevisitedParis'))
val_dataloader = test_dataloader
gallery_dataloader = test_dataloader
test_evaluator = dict(protocol='RevisitedParis')
val_evaluator = test_evaluator
