# What the recipes on Glyphs share; each adds its loss.
_base_ = [
    './models/resnet10_glyphs.py',
    './datasets/glyphs_40.py',
    './schedules/adamw_cosine_2e.py',
    './default_runtime.py',
]
