_base_ = ['../_base_/methods/multi_similarity.py', '../_base_/datasets/csv_224.py']
