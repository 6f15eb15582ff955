_base_ = [
    '../_base_/models/resnet10_glyphs.py',
    '../_base_/datasets/glyphs_40.py',
    '../_base_/schedules/adamw_onecycle_4e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    head=dict(
        type='MetricHead',
        loss=dict(type='PML.ArcFaceLoss', num_classes=1433, embedding_size=128,
                  margin=17, scale=24)))  # margin in degrees, as the library takes it
