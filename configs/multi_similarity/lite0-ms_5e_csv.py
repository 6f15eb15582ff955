_base_ = ['../_base_/methods/fine_tuning.py', '../_base_/datasets/csv_96.py']
