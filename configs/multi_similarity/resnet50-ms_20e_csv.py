_base_ = ['../_base_/methods/fine_tuning_resnet50.py', '../_base_/datasets/csv_224.py']
