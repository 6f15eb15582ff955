_base_ = [
    '../_base_/methods/arcface_landmarks.py', '../_base_/datasets/revisited_paris_1024.py']
# Trained on one dataset and tested on another: TRAIN_DATA_ROOT and DATA_ROOT are their folders.
default_hooks = dict(checkpoint=dict(save_best='embedding/medium/mAP-trapezoid'))
train_dataloader = dict(
    dataset=dict(data_root='{{$TRAIN_DATA_ROOT:data/google_landmarks_v2}}'))
