import torch
from torch import nn

from retrieval.gallery import Fingerprint, hash_settings, hash_weights


def test_the_smallest_change_of_a_weight_is_seen():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = hash_weights(module)
    assert before == hash_weights(module)
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = torch.nextafter(
            module[0].weight[0, 0, 0, 0], torch.tensor(9.0))
    changed = hash_weights(module)
    module[1].running_mean[0] = 1e-8
    assert len({before, changed, hash_weights(module)}) == 3


def test_weights_of_every_dtype_are_hashed():
    module = nn.Linear(3, 3)
    assert len({hash_weights(module.to(dtype)) for dtype in (
        torch.float32, torch.bfloat16, torch.float16, torch.float64)}) == 4


def test_settings_are_compared_by_value():
    assert hash_settings(dict(a=(1, 2), b=1.0)) == hash_settings(dict(b=1, a=[1.0, 2]))
    assert hash_settings(dict(a=torch.tensor([1.0]))) == hash_settings(dict(a=[1]))
    assert hash_settings([dict(type='Resize', scale=64)]) != hash_settings(
        [dict(type='Resize', scale=65)])
    assert hash_settings(True) != hash_settings(1)


def test_differences_are_named_and_unknown_parts_pass():
    made = Fingerprint('w', 'p', 't')
    assert made.differences(Fingerprint('w', 'p', 't')) == []
    assert made.differences(Fingerprint('W', 'p', None)) == ["the encoder's weights"]
    assert made.differences(Fingerprint(None, 'P', 'T')) == [
        "the data preprocessor's settings", 'the test pipeline']


def test_parts_are_completed_and_read_back():
    one, two = Fingerprint('w', None, 't'), Fingerprint('x', 'p', None, pooling='o')
    assert one.completed(two) == Fingerprint('w', 'p', 't', 'o', None)
    assert Fingerprint.from_dict(two.as_dict()) == two
    assert Fingerprint.from_dict(dict(weights='w', a_later_part='l')) == Fingerprint('w')
    assert one.differences(two) == ["the encoder's weights"]
    assert Fingerprint(pooling='a').differences(Fingerprint(pooling='b')) == [
        "the pooling's settings"]


def test_functions_and_classes_are_settings_by_name():
    def other():
        """Another function."""
    hashes = {hash_settings(dict(act=act)) for act in (torch.relu, nn.ReLU, other, object())}
    assert len(hashes) == 4 and hash_settings(dict(act=nn.ReLU)) in hashes
