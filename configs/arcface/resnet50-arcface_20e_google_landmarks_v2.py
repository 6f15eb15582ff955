_base_ = [
    '../_base_/methods/arcface_landmarks.py', '../_base_/datasets/google_landmarks_v2_1024.py']
default_hooks = dict(checkpoint=dict(save_best='embedding/mAP@100'))
train_cfg = dict(val_interval=20)  # one validation encodes three quarters of a million images
