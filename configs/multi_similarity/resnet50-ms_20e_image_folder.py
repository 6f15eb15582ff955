_base_ = ['../_base_/methods/fine_tuning_resnet50.py', '../_base_/datasets/image_folder_224.py']
