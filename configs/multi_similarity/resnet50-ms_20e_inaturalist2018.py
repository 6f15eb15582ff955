_base_ = ['../_base_/methods/multi_similarity.py', '../_base_/datasets/inaturalist2018_224.py']
