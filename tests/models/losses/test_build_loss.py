"""Losses: facts from public libraries, equality with MONAI, laws, and refusals with a sentence."""

from __future__ import annotations

import itertools
from pathlib import Path

import monai.losses
import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from torch.nn import functional as F

from pipeline.base.errors import ConfigError
from pipeline.models.losses.build_loss import build_loss
from pipeline.models.losses.fused_dice_ce import FusedDiceCE
from pipeline.models.losses.loss_config import LossConfig

GOLDEN = yaml.safe_load((Path(__file__).parents[2] / "golden/loss_cases.yaml").read_text(encoding="utf-8"))
NAMES = ["dice", "ce", "dice_ce", "dice_focal", "dice_topk", "focal", "generalized_dice", "tversky"]


def settings(**values):
    return TypeAdapter(LossConfig).validate_python(values)


def _number(value):
    return float(value) if isinstance(value, str) and value[:1].isdigit() else value


def _bits(target_BKV: torch.Tensor) -> torch.Tensor:
    weights = 2 ** torch.arange(target_BKV.shape[1])
    return (target_BKV.flatten(2).long() * weights[:, None]).sum(1)


def _arrays(case) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(GOLDEN["arrays"][case[name]], dtype=torch.float32) for name in ("input", "target"))


@pytest.mark.parametrize("case", [c for c in GOLDEN["cases"] if "ours" in c], ids=lambda c: c["id"])
def test_golden_cases_hold_for_our_losses(case):
    logits, target = _arrays(case)
    overlapping = case.get("overlapping", False)
    loss = build_loss(settings(**{k: _number(v) for k, v in case["ours"].items()}), logits.shape[1], overlapping)
    label = _bits(target) if overlapping else target[:, 0].long()
    torch.testing.assert_close(
        loss(logits, label), torch.tensor(case["expected"]), rtol=float(case.get("rtol", 1e-4)), atol=1e-4
    )


@pytest.mark.parametrize("case", [c for c in GOLDEN["cases"] if "monai" in c], ids=lambda c: c["id"])
def test_golden_cases_hold_for_the_monai_that_we_stand_on(case):
    arguments = {name: _number(value) for name, value in case["monai"].items()}
    if "weight" in arguments:
        arguments["weight"] = torch.tensor(arguments["weight"], dtype=torch.float32)
    value = getattr(monai.losses, arguments.pop("class"))(**arguments)(*_arrays(case))
    torch.testing.assert_close(value.squeeze(), torch.tensor(case["expected"]), rtol=1e-3, atol=1e-5)


def test_golden_l11_batch_dice_of_tanh():
    """B with the activation tanh and sums over the batch (MONAI tests/losses/test_dice_loss.py)."""
    logits = torch.tensor([[[[1.0, -0.0], [-1, 1]]], [[[1, -1], [-1, 1]]]])
    target = torch.tensor(GOLDEN["arrays"]["A2t"], dtype=torch.float32)
    loss = monai.losses.DiceLoss(other_act=torch.tanh, batch=True, smooth_nr=1e-4, smooth_dr=1e-4)
    torch.testing.assert_close(loss(logits, target), torch.tensor(0.774718), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("logit", "target", "expected"),
    [(1, 1, 0.02266), (1, 0, 0.70187), (0.5, 1, 0.06757), (0.5, 0, 0.37741), (0, 1, 0.17329), (0, 0, 0.17329)],
)
def test_golden_l23_focal_of_a_single_voxel(logit, target, expected):
    """(1 - p)² · (-log p) with p = σ(logit) where the target is 1."""
    loss = build_loss(settings(name="focal"), 1, overlapping=True)
    value = loss(torch.tensor([[[[[float(logit)]]]]]), torch.tensor([[[[target]]]]))
    torch.testing.assert_close(value, torch.tensor(expected), rtol=1e-3, atol=1e-5)


def _random(batch=2, classes=4, size=(5, 6, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn((batch, classes, *size), generator=generator)
    return logits, torch.randint(0, classes, (batch, *size), generator=generator)


@pytest.mark.parametrize(
    ("include_background", "batch", "squared_pred", "weighted", "classes"),
    itertools.product([False, True], [False, True], [False, True], [False, True], [1, 2, 5]),
)
def test_fused_dice_ce_is_monais_in_value_and_gradient(include_background, batch, squared_pred, weighted, classes):
    logits, label = _random(classes=classes + 1, seed=classes)
    if classes > 1:
        label[label == classes] = 0  # the last class is absent
    shared = {"include_background": include_background, "batch": batch, "squared_pred": squared_pred}
    weights = torch.rand(classes + 1, generator=torch.Generator().manual_seed(1)) + 0.2 if weighted else None
    factors = {"lambda_dice": 0.7, "lambda_ce": 1.3}
    theirs = monai.losses.DiceCELoss(softmax=True, to_onehot_y=True, weight=weights, **shared, **factors)
    ours = FusedDiceCE(class_weights=weights, **shared, **factors)
    their_logits, our_logits = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected, value = theirs(their_logits, label[:, None]), ours(our_logits, label)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    (2 * expected).backward()
    (2 * value).backward()
    torch.testing.assert_close(
        our_logits.grad, their_logits.grad, rtol=1e-5, atol=1e-5 * float(their_logits.grad.abs().max())
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_fused_dice_ce_goes_through_large_volumes_in_pieces_without_a_seam(classes):
    logits, label = _random(batch=1, classes=classes, size=(64, 48, 40), seed=5)
    theirs = monai.losses.DiceCELoss(include_background=False, softmax=True, to_onehot_y=True)
    their_logits, our_logits = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    theirs(their_logits, label[:, None]).backward()
    FusedDiceCE()(our_logits, label.to(torch.uint8)).backward()
    torch.testing.assert_close(
        our_logits.grad, their_logits.grad, rtol=1e-4, atol=1e-5 * float(their_logits.grad.abs().max())
    )


@pytest.mark.parametrize("third", [[], [[-300.0, -300.0]]])
def test_fused_dice_ce_is_exact_for_extreme_logits(third):
    """A very wrong voxel costs its logit difference, where log(softmax) would be infinite."""
    logits = torch.tensor([[[200.0, 0.0], [0.0, 200.0], *third]])[..., None, None].requires_grad_()
    loss = FusedDiceCE(lambda_dice=0.0)(logits, torch.tensor([[[[1]], [[1]]]]))
    torch.testing.assert_close(loss, torch.tensor(100.0))
    loss.backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [2, 4])
def test_fused_dice_ce_takes_logits_of_half_precision(dtype, classes):
    logits, label = _random(classes=classes)
    half = logits.to(dtype).requires_grad_()
    value = FusedDiceCE()(half, label)
    value.backward()
    torch.testing.assert_close(value, FusedDiceCE()(logits, label), rtol=2e-2, atol=2e-2)
    assert half.grad.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 4])
def test_ignored_voxels_change_nothing_whatever_they_hold(name, classes):
    """The loss equals that of the same batch with its ignored half cut away, and has no gradient there."""
    logits, label = _random(classes=classes, size=(6, 4, 4))
    loss = build_loss(settings(name=name), classes, ignore=255)
    expected = loss(logits[:, :, :3], label[:, :3])
    label[:, 3:] = 255
    logits.requires_grad_()
    value = loss(logits, label)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    value.backward()
    assert (logits.grad[:, :, 3:] == 0).all() and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("classes", [2, 4])
def test_gradients_are_finite_for_patches_of_one_class_or_nothing(name, value, classes):
    logits, label = _random(classes=classes)
    logits.requires_grad_()
    loss = build_loss(settings(name=name), classes, ignore=255)(logits, torch.full_like(label, value))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("overlapping", [False, True])
def test_a_sure_and_right_answer_costs_nothing(name, overlapping):
    _, label = _random()
    if overlapping:
        bits = torch.randint(1, 16, label.shape, generator=torch.Generator().manual_seed(2))
        logits = 200.0 * ((bits[:, None] >> torch.arange(4)[:, None, None, None]) & 1) - 100
        label = bits
    else:
        logits = 200.0 * F.one_hot(label, 4).permute(0, 4, 1, 2, 3) - 100
    assert float(build_loss(settings(name=name), 4, overlapping)(logits, label)) == pytest.approx(0, abs=1e-4)


def test_overlapping_regions_get_dice_and_binary_cross_entropy_per_structure():
    """MONAI's DiceCELoss(sigmoid=True) would add a softmax cross-entropy, which regions that overlap do not fit."""
    logits, _ = _random(classes=3)
    bits = torch.randint(0, 8, logits[:, 0].shape, generator=torch.Generator().manual_seed(4))
    target = ((bits[:, None] >> torch.arange(3)[:, None, None, None]) & 1).float()
    expected = monai.losses.DiceLoss(sigmoid=True)(logits, target) + F.binary_cross_entropy_with_logits(logits, target)
    value = build_loss(settings(name="dice_ce"), 3, overlapping=True)(logits, bits.to(torch.uint8))
    torch.testing.assert_close(value, expected)


def test_focal_without_focus_is_binary_cross_entropy():
    logits, label = _random(classes=3)
    value = build_loss(settings(name="focal", gamma=0, one_vs_rest=True), 3)(logits, label)
    target = F.one_hot(label, 3).permute(0, 4, 1, 2, 3).float()
    torch.testing.assert_close(value, F.binary_cross_entropy_with_logits(logits, target), rtol=1e-6, atol=1e-6)


def test_dice_focal_is_the_weighted_sum_of_its_parts():
    logits, label = _random()
    both = settings(name="dice_focal", lambda_dice=0.3, lambda_focal=2.0, include_background=True)
    dice, focal = settings(name="dice", include_background=True), settings(name="focal")
    expected = 0.3 * build_loss(dice, 4)(logits, label) + 2 * build_loss(focal, 4)(logits, label)
    torch.testing.assert_close(build_loss(both, 4)(logits, label), expected)


@pytest.mark.parametrize("name", ["focal", "dice_focal"])
@pytest.mark.parametrize("classes", [2, 4])
def test_focal_without_the_backgrounds_term_still_knows_the_background(name, classes):
    """A structure's voxel that is taken for background costs the more the surer that is; in the right order of K."""
    label = torch.ones((1, 2, 2, 2), dtype=torch.long)
    losses = [
        build_loss(settings(name=name, include_background=False), classes)(wrong, label)
        for sure in (0.0, 4.0)
        for wrong in (torch.cat([torch.full((1, 1, 2, 2, 2), sure), torch.zeros(1, classes - 1, 2, 2, 2)], 1),)
    ]
    assert losses[1] > 1.5 * losses[0] > 0


def test_dice_focal_makes_false_structures_in_background_cost_more_than_dice_does():
    logits, label = _random(classes=2)
    logits.requires_grad_()
    loss = build_loss(settings(name="dice_focal", lambda_dice=0), 2)
    loss(logits, torch.zeros_like(label)).backward()
    assert (logits.grad[:, 1] > 0).all()  # each voxel of background draws the structure's logit down


@pytest.mark.parametrize("overlapping", [False, True])
def test_focal_takes_weights_also_where_one_channel_counts(overlapping):
    logits, label = _random(classes=1 if overlapping else 2)
    weights = (3.0,) if overlapping else (1.0, 3.0)
    one = settings(name="focal", include_background=False)
    weighted = settings(name="focal", include_background=False, class_weights=weights)
    values = [build_loss(each, logits.shape[1], overlapping)(logits, label) for each in (one, weighted)]
    torch.testing.assert_close(values[1], 3 * values[0])


def test_focal_is_monais_where_the_background_counts():
    logits, label = _random()
    target = F.one_hot(label, 4).permute(0, 4, 1, 2, 3).float()
    weights = (0.5, 1.0, 2.0, 3.0)
    theirs = monai.losses.FocalLoss(gamma=1.5, use_softmax=True, weight=torch.tensor(weights))
    ours = build_loss(settings(name="focal", gamma=1.5, class_weights=weights), 4)
    torch.testing.assert_close(ours(logits, label), theirs(logits, target))


def test_topk_is_the_mean_over_the_hardest_voxels():
    logits, label = _random()
    value = build_loss(settings(name="dice_topk", lambda_dice=0, top_percent=25), 4)(logits, label)
    each = F.cross_entropy(logits, label, reduction="none").flatten()
    torch.testing.assert_close(value, each.sort(descending=True).values[: each.numel() // 4].mean())


def test_tversky_of_halves_is_dice():
    logits, label = _random()
    tversky = settings(name="tversky", alpha=0.5, beta=0.5, smooth_nr=0, smooth_dr=0)
    dice = settings(name="dice", smooth_nr=0, smooth_dr=0)
    torch.testing.assert_close(build_loss(tversky, 4)(logits, label), build_loss(dice, 4)(logits, label))


def test_one_alpha_stands_for_both_lambdas():
    logits, label = _random()
    one = build_loss(settings(name="dice_ce", alpha=0.25), 4)(logits, label)
    two = build_loss(settings(name="dice_ce", lambda_dice=0.25, lambda_ce=0.75), 4)(logits, label)
    torch.testing.assert_close(one, two)


def test_permuting_classes_with_their_weights_changes_nothing():
    logits, label = _random()
    order = torch.tensor([0, 3, 1, 2])
    new_index = torch.argsort(order)
    weights = (0.5, 1.0, 2.0, 3.0)
    permuted = tuple(weights[i] for i in order)
    for name in ("dice", "ce", "dice_ce", "dice_focal"):
        value = build_loss(settings(name=name, class_weights=weights), 4)(logits, label)
        other = build_loss(settings(name=name, class_weights=permuted), 4)(logits[:, order], new_index[label])
        torch.testing.assert_close(value, other)


REFUSED = [
    ({"name": "dice", "activation": "softmax"}, {"overlapping": True}, "structures of this data overlap"),
    ({"name": "ce", "activation": "sigmoid"}, {}, "exclude one another; use softmax or auto, or ask for it"),
    ({"name": "ce", "class_weights": (1.0, 2.0)}, {}, "has 2 weights, but the network has 4 channels"),
    ({"name": "ce", "class_weights": "inverse_frequency"}, {}, "run plan again, or give one weight per channel"),
]


@pytest.mark.parametrize(("loss", "data", "sentence"), REFUSED)
def test_mismatches_are_refused_with_a_sentence(loss, data, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_loss(settings(**loss), 4, **data)


def test_inverse_frequency_takes_the_plans_weights():
    logits, label = _random()
    weights = (0.1, 1.0, 2.0, 4.0)
    by_name = build_loss(settings(name="ce", class_weights="inverse_frequency"), 4, inverse_frequency=weights)
    torch.testing.assert_close(by_name(logits, label), F.cross_entropy(logits, label, torch.tensor(weights)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_ce_of_a_patch_whose_classes_all_weigh_nothing_is_0(smoothing):
    """A patch of nothing but background, which weighs 0: there is nothing to learn, and 0 / 0 is no number."""
    logits, label = _random()
    ce = settings(name="ce", class_weights=(0.0, 1.0, 2.0, 3.0), label_smoothing=smoothing)
    logits.requires_grad_()
    nothing = build_loss(ce, 4)(logits, torch.zeros_like(label))
    nothing.backward()
    assert nothing == 0 and (logits.grad == 0).all()
    expected = F.cross_entropy(logits, label, torch.tensor(ce.class_weights), label_smoothing=smoothing)
    torch.testing.assert_close(build_loss(ce, 4)(logits, label), expected)


@pytest.mark.parametrize("classes", [2, 4])
def test_fused_dice_ce_of_such_a_patch_is_finite_under_a_scaled_gradient_too(classes):
    logits, label = _random(classes=classes)
    logits.requires_grad_()
    loss = FusedDiceCE(lambda_ce=10.0, class_weights=torch.arange(float(classes)))(logits, torch.zeros_like(label))
    (2.0**16 * loss).backward()  # as with fp16
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "values",
    [
        {"name": "dice_ce", "alpha": 0.3, "lambda_ce": 2.0},
        {"name": "dice_ce", "lambda_dice": 0, "lambda_ce": 0},
        {"name": "dice_focal", "lambda_dice": 0, "lambda_focal": 0},
        {"name": "dice_topk", "lambda_dice": 0, "lambda_ce": 0},
        {"name": "ce", "activation": "softmax", "one_vs_rest": True},
        {"name": "tversky", "class_weights": [1, 1]},
        {"name": "dice_top"},
    ],
)
def test_contradictions_in_the_settings_are_refused(values):
    with pytest.raises(ValidationError):
        settings(**values)
