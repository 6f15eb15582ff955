_base_ = ['../_base_/methods/multi_similarity.py', '../_base_/datasets/image_folder_224.py']
