_base_ = ['../_base_/methods/fine_tuning.py', '../_base_/datasets/image_folder_96.py']
