"""What is made of the study's rows: comparisons, table, figures and pages."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from experiments import results_page
from experiments.comparison import PairedDifference, holm
from experiments.pooling_study import lambdas, runs, tasks, training
from experiments.pooling_study.answers import (
    BESIDE,
    CELLS,
    LARGER_CELLS,
    answer,
    answer_beside,
    differences,
    errors_in,
    mean_errors,
)
from experiments.pooling_study.by_pair import NOTHING, by_pair, without_the_largest
from experiments.pooling_study.costs import CostRow
from experiments.pooling_study.course import convergence, hours, what_is_learned
from experiments.pooling_study.examples import keep_example_images, read_example_images
from experiments.pooling_study.figures import draw_answers, draw_lambdas
from experiments.pooling_study.longer import (
    longer_course,
    longer_tables,
    with_longer_training,
)
from experiments.pooling_study.networks import NETWORKS
from experiments.pooling_study.pilot import PilotRow
from experiments.pooling_study.plan import COMPARED, RECIPES, SEEDS, SEEDS_OF_THE_QUESTION, plan_of
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import EpochRow, ExampleRow, LambdaRow, RunRow, ShiftRow
from experiments.pooling_study.tables import larger_table, study_table
from experiments.rows import write_rows
from tests.training.images.test_fashion_mnist import write_files
from training.records.environment import REPOSITORY

ROW = RunRow(
    task="fashion",
    network="small_cnn",
    pooling="max",
    seed=0,
    top1_error=8.5,
    loss=0.25,
    parameters=23_794,
    width=8,
    epochs=12,
    batch_size=128,
    lr=0.1,
    seconds=250.5,
    commit="0123abc",
    dirty="False",
    torch="2.14.1",
    numba="0.68.1",
    python="3.11.7",
    backend="numba",
    device='Processor, with a comma and a "quote"',
    started="2026-01-02T03:04:05+00:00",
)


def runs_of(errors, cells=CELLS):
    """Rows of the top-1 errors by pooling, a list over the seeds of one error a cell."""
    return [
        replace(ROW, task=task, network=network, pooling=pooling, seed=seed, top1_error=error)
        for pooling, by_seed in errors.items()
        for seed, by_cell in enumerate(by_seed)
        for (task, network), error in zip(cells, by_cell, strict=True)
    ]


QUESTION = {
    "max": [(9, 9, 20, 20), (9, 10, 21, 20), (8, 10, 20, 22)],
    "avg": [(9, 9, 18, 18), (8, 10, 18, 19), (8, 11, 17, 18)],
    "max_ent_constant": [(9, 9, 19, 19), (9, 9, 19, 20), (8, 10, 18, 19)],
    "max_ent": [(8, 9, 18, 19), (8, 9, 19, 18), (8, 9, 18, 19)],
}


def test_errors_are_averaged_over_the_pairs_of_the_seeds_that_all_have():
    rows = runs_of({"max": QUESTION["max"]})
    assert mean_errors(rows) == {"max": {0: 14.5, 1: 15, 2: 15}}
    lacking = [row for row in rows if (row.seed, row.task) != (1, "canvas")]
    assert mean_errors(lacking) == {"max": {0: 14.5, 2: 15}}


def test_question_by_hand():
    found = differences(mean_errors(runs_of(QUESTION)), COMPARED)
    guided = [13.5, 13.5, 13.5]
    by_hand = [
        PairedDifference.of("max", guided, [14.5, 15, 15]),
        PairedDifference.of("avg", guided, [13.5, 13.75, 13.5]),
        PairedDifference.of("max_ent_constant", guided, [14, 14.25, 13.75]),
    ]
    adjusted = holm([each.p for each in by_hand], family=3)
    assert found == [replace(each, p_holm=p) for each, p in zip(by_hand, adjusted, strict=True)]


@pytest.mark.parametrize("shift", [0, 5])
def test_answer_says_which_way_it_falls(shift):
    errors = {pooling: (by_seed * 3)[:8] for pooling, by_seed in QUESTION.items()}
    errors["max_ent"] = [[each + shift for each in by_cell] for by_cell in errors["max_ent"]]
    found = answer(runs_of(errors))
    largest, average, constant = (
        f"{each.low:+.2f} to {each.high:+.2f})"
        for each in differences(mean_errors(runs_of(errors)), COMPARED)
    )
    of_max = f"max pooling ({-1.3125 + shift:+.2f} points of top-1 error, 95% interval {largest}"
    of_average = f"average pooling ({-0.09375 + shift:+.2f}, {average}"
    of_constant = f"the same layer whose head sees a constant ({-0.53125 + shift:+.2f}, {constant}"
    verdict = (
        f"makes significantly fewer errors than {of_max} and {of_constant}; it does not differ "
        f"significantly from {of_average}"
        if shift == 0
        else f"makes significantly more errors than {of_max}, {of_average} and {of_constant}"
    )
    assert found.startswith(
        "Averaged over two small networks, two tasks and 8 seeds, guided Max-Ent pooling "
        f"{verdict} (5%, Holm's correction for 3)."
    )


def test_answer_allows_for_the_number_of_comparisons():
    errors = {
        "max": [(8, 8, 8, 8.4), (8, 8, 8, 8.6), (8, 8, 8, 8.0)],
        "avg": [(8, 8, 8, 8), (7, 8, 8, 8), (7, 7, 8, 8)],
        "max_ent_constant": [(7, 7, 8, 8), (7, 8, 8, 8), (8, 8, 8, 8)],
        "max_ent": [(7, 8, 8, 8), (7, 8, 8, 8), (7, 8, 8, 8)],
    }
    found = differences(mean_errors(runs_of(errors)), COMPARED)
    assert found[0].p < 0.05 < found[0].p_holm


def test_nothing_is_called_significant_before_the_last_seed():
    errors = {pooling: (by_seed * 3)[:7] for pooling, by_seed in QUESTION.items()}
    found = answer(runs_of(errors))
    assert "two tasks and 7 seeds, " in found
    assert (
        "guided Max-Ent pooling differs by -1.29 points of top-1 error, 95% interval -1.53 to -1.04"
        in found
    )
    assert " from the same layer whose head sees a constant. **This" in found
    assert "significant" not in found


def test_answer_can_be_that_nothing_differs():
    same = [(8, 9, 18, 19), (8, 9, 19, 18), (8, 9, 18, 20)]
    noisy = [(8, 9, 19, 18), (8, 9, 18, 18), (8, 9, 19, 20)]
    errors = {**dict.fromkeys(COMPARED, (same * 3)[:8]), "max_ent": (noisy * 3)[:8]}
    found = answer(runs_of(errors))
    assert "makes" not in found
    assert "does not differ significantly from max pooling (" in found
    assert "), so whether the guidance adds anything remains open (5%" in found


def test_answer_says_what_is_still_to_be_run():
    found = answer(runs_of(QUESTION))
    assert found.endswith("**This is not the end of it:** 48 of 308 planned runs have been made.")
    whole = runs_of({pooling: (by_seed * 3)[:8] for pooling, by_seed in QUESTION.items()})
    one_more = runs_of({"soft": [(8, 9, 18, 19)]})[0]
    expected = "9 more poolings to compare it with; 1 of their 180 runs have been made."
    assert answer([*whole, one_more]).endswith(f" **Still to come:** {expected}")
    first = [row for row in runs_of(QUESTION) if row.seed == 0]
    expected = "**There is no answer yet:** 16 of 308 planned runs have been made."
    assert answer(first) == expected
    whole = [
        replace(
            ROW,
            task=run.task,
            network=run.network,
            pooling=run.pooling,
            seed=run.seed,
            top1_error=9.0 + run.seed % 2 + (run.pooling == "avg") * run.seed,
        )
        for run in plan_of("study")
    ]
    assert "made" not in answer(whole)
    assert "and 8 seeds, " in answer(whole)
    without_one = [run for run in whole if run.pooling != "gauss"]
    for lacking in (whole[:-1], without_one):
        assert answer_beside(lacking) == "Of the 9 others not all seeds are there yet."
    said = answer_beside(whole)
    assert said.startswith("Against the 9 others guided Max-Ent pooling does not differ sig")
    better = {"skip": 3.0, "gauss": -3.0}  # of every pair's mean, and a little by seed
    changed = [
        replace(run, top1_error=run.top1_error + better.get(run.pooling, 0) * (1 + run.seed / 10))
        for run in whole
    ]
    assert answer_beside(changed) == (
        "Against the 9 others guided Max-Ent pooling makes significantly fewer errors than strided "
        "convolutions; it makes significantly more errors than guided Gaussian pooling; it does "
        "not differ significantly from mixed pooling, generalised-mean pooling, SoftPool, Max-Ent "
        "pooling with a λ per channel, guided pooling with softplus, guided pooling whose head "
        "does not decay and guided pooling with softplus whose head does not decay (5%, Holm's "
        "correction for 9)."
    )


def shifts_of(errors):
    """Rows of moved images, by 0 to 2 pixels, of the errors by pooling as ``runs_of`` has them."""
    return [
        ShiftRow(run.task, run.network, run.pooling, run.seed, distance, run.top1_error * distance)
        for run in runs_of(errors)
        for distance in (0, 1, 2)
    ]


def test_each_pair_by_hand():
    guided = {"max_ent": [(8, 9, 18, 19), (8, 9, 19, 18), (8, 10, 18, 20)]}
    others = {
        "max": [(9, 9, 20, 18), (9, 9, 21, 18), (9, 9, 19, 18)],
        "avg": [(8, 9, 19, 19), (8, 9, 19, 18), (8, 10, 18, 20)],
        "max_ent_constant": [(7.5, 9, 18, 19), (7.5, 9, 19, 18), (7.5, 10, 18, 21)],
    }
    errors = {**guided, **others}
    # An interval of 3 differences is of 4.303 standard errors; moved is mean of once and twice.
    assert by_pair(runs_of(errors), shifts_of(errors)).splitlines() == [
        "- Fashion-MNIST, small CNN: -1.00*, +0.00, +0.50*; moved -1.50*, +0.00, +0.75*",
        "- Fashion-MNIST, ResNet-18: +0.33, +0.00, +0.00; moved +0.50, +0.00, +0.00",
        "- canvas, small CNN: -1.67*, -0.33, +0.00; moved -2.50*, -0.50, +0.00",
        "- canvas, ResNet-18: +1.00, +0.00, -0.33; moved +1.50, +0.00, -0.50",
    ]
    found = without_the_largest(runs_of(errors))
    assert found.startswith("Largest they are in *canvas, small CNN*; without it the means ")
    rest = differences(mean_errors(runs_of(errors), [CELLS[0], CELLS[1], CELLS[3]]), COMPARED)
    for each in rest:
        assert f"{each.mean:+.2f} ({each.low:+.2f} to {each.high:+.2f})" in found
    unguided = PairedDifference.of("max", [13.375, 13.375, 14.125], [14, 14.25, 13.75])
    interval = f"({unguided.low:+.2f} to {unguided.high:+.2f})"
    assert f"is itself at {unguided.mean:+.2f} {interval} against max pooling" in found
    for lacking in (runs_of(guided), runs_of({**errors, "avg": errors["avg"][:1]})):
        assert by_pair(lacking, shifts_of(errors)) == NOTHING
        assert without_the_largest(lacking) == NOTHING
    assert by_pair(runs_of(errors), shifts_of(guided)) == NOTHING
    # Two seeds in each pair, of which no two are all pairs'.
    other_seeds = [
        replace(run, seed=run.seed + (run.task == "canvas"))
        for run in runs_of(errors)
        if run.seed < 2
    ]
    assert without_the_largest(other_seeds) == NOTHING


def test_table_by_hand():
    costs = [
        CostRow(task, network, pooling, 64, milliseconds, 3, *6 * [""])
        for factor, (task, network) in enumerate(CELLS, start=1)
        for pooling, milliseconds in (("max", 10.0), ("avg", 12.5 + factor))
    ]
    errors = {**QUESTION, "skip": [(9, 9, 20, 21), (9, 9, 20, 20)], "soft": [(1, 2, 3, 4)]}
    lines = study_table(runs_of(errors), costs).splitlines()
    skip, largest, average = lines[2:5]
    assert skip.startswith(
        "| none: convolutions stride | 9.00 ± 0.00 | 9.00 ± 0.00 | 20.00 ± 0.00 |"
    )
    assert "| 2 | -1.12 (-2.71 to +0.46) |  |" in skip
    assert largest.startswith(
        "| max | 8.67 ± 0.58 | 9.67 ± 0.58 | 20.33 ± 0.58 | 20.67 ± 1.15 | 3 |"
    )
    assert largest.endswith("| 23,794 / 23,794 | 1.00 |")
    assert average.endswith("| 1.35 to 1.65 |")
    (soft,) = (line for line in lines if "SoftPool" in line)
    title = POOLINGS["soft"].title
    assert soft == f"| {title} | 1.00 | 2.00 | 3.00 | 4.00 | 1 |  |  | 23,794 / 23,794 |  |"


def test_table_has_p_once_all_seeds_are_there():
    errors = {pooling: (by_seed * 3)[:8] for pooling, by_seed in QUESTION.items()}
    errors["skip"] = errors["max"][:5]
    errors["soft"] = errors["max"][:4]
    means = mean_errors(runs_of(errors))
    of_question, beside = differences(means, COMPARED), differences(means, ["skip"])
    cells = {
        line.split(" | ")[0][2:]: line.split(" | ")[7]
        for line in study_table(runs_of(errors), []).splitlines()[2:]
    }
    for each in of_question:
        assert cells[POOLINGS[each.pool].title] == f"{each.p_holm:.2g}"
    # One of nine comparisons, those that are still to be made among them.
    assert cells[POOLINGS["skip"].title] == f"{min(1, 9 * beside[0].p):.2g}"
    assert cells[POOLINGS["soft"].title] == ""


def test_table_without_a_whole_seed_says_so():
    rows = [row for row in runs_of({"max": QUESTION["max"]}) if row.task == "fashion"]
    assert study_table(rows, []) == "No seed has been run in every pair yet."


def test_table_of_the_larger_networks_has_no_test_and_no_time():
    errors = {"max": [(9, 20), (9, 21), (9, 22)], "max_ent": [(8, 19), (8.5, 19)]}
    assert larger_table(runs_of(errors, LARGER_CELLS)).splitlines() == [
        "| pooling | Fashion-MNIST, ResNet-18 | canvas, ResNet-18 | seeds | guided less this one, "
        "mean of the pairs | parameters |",
        "|---|---|---|---|---|---|",
        "| max | 9.00 ± 0.00 | 21.00 ± 1.00 | 3 | -1.12 (-2.71 to +0.46; 2 seeds) | 23,794 |",
        "| **Max-Ent, guided** (sigmoid) | 8.25 ± 0.35 | 19.00 ± 0.00 | 2 |  | 23,794 |",
    ]
    assert larger_table([]) == "No seed has been run in every pair yet."


CANVAS, NARROW = ("canvas", "small_cnn"), ("canvas", "resnet18")
NO_TWO = "there are no two seeds of each pooling yet"


def test_longer_runs_stand_beside_the_same_seeds_of_the_study():
    study = runs_of(
        {
            "max": [(9, 9, 20, 20), (9, 9, 21, 20), (9, 9, 50, 20)],
            "max_ent": [(8, 8, 19, 19), (8, 8, 18, 19), (8, 8, 10, 19)],
            "soft": [(9, 9, 20, 20)] * 3,
        }
    )
    longer = runs_of(
        {"avg": [(18,)], "max": [(16,), (17,)], "max_ent": [(15,), (17,), (9,), (9,)]}, [CANVAS]
    )
    assert longer_tables(study, longer).splitlines() == [
        "*canvas, small CNN*:",
        "",
        "| pooling | seeds | 12 epochs | 36 epochs | guided less this one, 12 epochs | "
        "guided less this one, 36 epochs | change of it |",
        "|---|---|---|---|---|---|---|",
        # Two differences of -1 and -3, of -1 and 0, and of these 0 and 3: 12.706 standard errors.
        "| max | 2 | 20.50 ± 0.71 | 16.50 ± 0.71 | -2.00 (-14.71 to +10.71) | "
        "-0.50 (-6.85 to +5.85) | +1.50 (-17.56 to +20.56) |",
        "| **Max-Ent, guided** (sigmoid) | 3 | 15.67 ± 4.93 | 13.67 ± 4.16 |  |  |  |",
        "",
        "*canvas, ResNet-18*:",
        "",
        "No seed has been run yet.",
    ]
    for nothing in (longer_tables(study, []), longer_tables([], longer)):
        assert nothing.count("No seed has been run yet.") == 2
    without_guided = [run for run in longer if run.pooling == "max"]
    assert longer_tables(study, without_guided).splitlines()[4:6] == [
        "| max | 2 | 20.50 ± 0.71 | 16.50 ± 0.71 |  |  |  |",
        "",
    ]
    narrow = longer_tables(study, runs_of({"max": [(16,)]}, [NARROW])).splitlines()
    assert narrow[-1] == "| max | 1 | 20.00 | 16.00 |  |  |  |"
    assert narrow[-3].startswith("| pooling | seeds | 16 epochs | 32 epochs | guided less this one")


AFTER_LONGER_TRAINING = {
    "max": [(20 + seed % 2,) for seed in range(8)],
    "avg": [(18 + seed % 2,) for seed in range(8)],
    "max_ent_constant": [(17 - seed % 3 / 2,) for seed in range(8)],
    "max_ent": [(19 - seed % 2 / 2,) for seed in range(8)],
}


def test_longer_runs_say_something_once_all_of_a_pair_are_there():
    small = runs_of(AFTER_LONGER_TRAINING, [CANVAS])
    narrow = runs_of(AFTER_LONGER_TRAINING, [NARROW])
    said = (
        "epochs the 95% interval of the difference is below 0 for max pooling; it is above 0 for "
        "the same layer whose head sees a constant; it holds 0 for average pooling"
    )
    of_small = f"- canvas, small CNN: after 36 {said}"
    of_narrow = f"- canvas, ResNet-18: after 32 {said}"
    no_small, no_narrow = f"- canvas, small CNN: {NO_TWO}", f"- canvas, ResNet-18: {NO_TWO}"
    assert longer_course(small + narrow, []).splitlines() == [of_small, of_narrow]
    assert longer_course(small + narrow[:-1], []).splitlines() == [of_small, no_narrow]
    assert longer_course(small[:-1] + narrow, []).splitlines() == [no_small, of_narrow]


def test_longer_runs_take_the_place_of_the_studys_own_once_all_of_a_pair_are_there():
    study = runs_of({pooling: (by_seed * 3)[:8] for pooling, by_seed in QUESTION.items()})
    small = runs_of(AFTER_LONGER_TRAINING, [CANVAS])
    narrow = runs_of(AFTER_LONGER_TRAINING, [NARROW])

    def by_hand(pairs):
        means = {
            pooling: {
                seed: np.mean(
                    [
                        AFTER_LONGER_TRAINING[pooling][seed][0]
                        if cell in pairs
                        else QUESTION[pooling][seed % 3][CELLS.index(cell)]
                        for cell in CELLS
                    ]
                )
                for seed in range(8)
            }
            for pooling in QUESTION
        }
        largest, average, constant = (
            f"{each.mean:+.2f} ({each.low:+.2f} to {each.high:+.2f})"
            for each in differences(means, COMPARED)
        )
        return (
            "guided Max-Ent pooling differs, averaged over the four pairs, by "
            f"{largest} from max pooling, {average} from average pooling and {constant} from the "
            "same layer whose head sees a constant."
        )

    begin = "With these runs in place of the study's own in *canvas, small CNN*"
    of_both = f"{begin} and *canvas, ResNet-18*, {by_hand([CANVAS, NARROW])}"
    assert with_longer_training(study, small + narrow) == of_both
    of_one = f"{begin}, {by_hand([CANVAS])}"
    assert with_longer_training(study, small + narrow[:-1]) == of_one
    assert of_one.split(",")[-1] != of_both.split(",")[-1]
    for lacking in ([], small[:-1] + narrow[:-1]):
        assert with_longer_training(study, lacking) == "No pair has all its longer runs yet."
    assert with_longer_training([], small) == "No pair has all its longer runs yet."


def test_what_the_last_epoch_of_the_longer_runs_gained():
    epochs = [
        EpochRow(*CANVAS, pooling, seed, done, 1.0, 1.0, error)
        for pooling, change in (("max", -0.25), ("avg", 0.5), ("max_ent", 0.5))
        for seed in (0, 1)
        for done, error in ((12, 99.0), (35, 20.0), (36, 20.0 + 2 * change * seed))
    ]
    # Of the first seed 0, of the second 0.5: 12.706 standard errors of 0.25.
    assert longer_course([], epochs).splitlines() == [
        "- canvas, small CNN: the last epoch changed the error by: max -0.25, average +0.50, "
        "guided +0.50; mean +0.25 (-2.93 to +3.43)",
        f"- canvas, ResNet-18: {NO_TWO}",
    ]
    assert longer_course([], epochs[:-1]).splitlines() == [
        f"- canvas, small CNN: {NO_TWO}",
        f"- canvas, ResNet-18: {NO_TWO}",
    ]


PILOT = ((9, 8.5, 8.25), (8, 8.5, 8.6), (7, 6, 5), (9, 9, 9))


def test_what_the_last_epoch_gained():
    rows = [
        PilotRow(*cell, 8, 3, 64, 0.1, done, 1.0, 30.0, 1.0, error)
        for cell, errors in zip(CELLS, PILOT, strict=True)
        for done, error in enumerate(errors, start=1)
    ]
    # Of each pooling the first of two seeds changes, and of the three's mean by -0.5 / 3.
    changes = {"max": -0.5, "avg": 0.25, "max_ent": 0.0, "soft": 1.0, "max_ent_constant": 9.0}
    epochs = [
        EpochRow(*cell, pooling, seed, RECIPES["study"][cell].epochs - before, 1.0, 1.0, error)
        for cell in CELLS
        for pooling, change in changes.items()
        for seed, before, error in (
            (0, 2, 50.0),
            (0, 1, 20.0),
            (0, 0, 20.0 + 2 * change),
            (1, 1, 30.0),
            (1, 0, 30.0),
        )
    ]
    # 12.706 standard errors of 0.25 / 3.
    of_runs = "max -0.50, average +0.25, guided +0.00; mean -0.08 (-1.14 to +0.98)"
    assert convergence(rows, epochs).splitlines() == [
        f"- Fashion-MNIST, small CNN: pilot -0.25; {of_runs}",
        f"- Fashion-MNIST, ResNet-18: pilot +0.10; {of_runs}",
        f"- canvas, small CNN: pilot -1.00; {of_runs}",
        f"- canvas, ResNet-18: pilot +0.00; {of_runs}",
        "",
        "By more than 0.1 points the error still fell, by the pilot, in *Fashion-MNIST, small CNN* "
        "and *canvas, small CNN*; by the mean of the three poolings, in no pair.",
    ]
    falling = [
        replace(row, test_error=row.test_error - (row.task == "canvas" and row.done > 11))
        for row in epochs
        if (row.task, row.network) != ("canvas", "resnet18") or row.done > 14
    ]
    assert "three poolings, in *canvas, small CNN*." in convergence(rows, falling)
    without = [row for row in epochs if row.pooling != "avg"]
    expected = "Not every pair has two seeds of these poolings yet."
    assert convergence(rows, without) == expected
    assert convergence(rows[:-2], epochs) == "The pilot has not been run in every pair yet."


def test_hours_are_those_of_the_file():
    rows = [replace(ROW, seconds=seconds) for seconds in (3600.0, 5400.0, 1800.0)]
    for name, planned in (("study", 308), ("longer", 64)):
        assert hours(rows, name) == (
            f"3 of the {planned} planned runs are in the file; their training took 3 hours, added "
            "up, each on one core beside another (by the clock, with pauses of the machine)."
        )
        assert hours([], name) == f"None of the {planned} planned runs has been made yet."


def lambda_row(cell, pooling, seed, done, layer, mean, position):
    return LambdaRow(
        *cell, pooling, seed, done, layer, mean, mean / 2, 2 * mean, 0.1, 0.2, position
    )


def test_what_is_learned_is_of_the_last_epoch():
    rows = [
        lambda_row(cell, pooling, seed, done, layer, mean, position)
        for cell in CELLS
        for last in [RECIPES["study"][cell].epochs]
        for seed, pooling, done, layer, mean, position in (
            (0, "max_ent", 0, 1, 0.125, 0.9),
            (0, "max_ent", 0, 2, 0.375, 0.9),
            (1, "max_ent", 0, 1, 0.375, 0.9),
            (0, "max_ent_constant", 0, 1, 0.75, 0.9),
            (0, "max_ent", last - 1, 1, 5.0, 0.9),
            (0, "max_ent", last, 1, 0.4, 0.25),
            (1, "max_ent", last, 1, 0.6, 0.35),
            (0, "max_ent", last, 2, 0.7, 0.1),
            (0, "max_ent_constant", last, 1, 0.3, 0.2),
        )
    ]
    assert what_is_learned(rows) == (
        "With guidance, λ is 0.25 to 0.38 before the first epoch and 0.50 to 0.70 after the last "
        "on average, by layer, and then 0.20 to 1.40 for single images and channels; the outputs "
        "are 10 to 30% of the way from average to max pooling. Without, λ is 0.30 after the last "
        "on average, by layer, and then 0.15 to 0.60 for single channels; the outputs are 20% of "
        "the way from average to max pooling."
    )
    # Of a seed that not every pair has there is nothing.
    late = RECIPES["study"][CELLS[0]].epochs
    more = lambda_row(CELLS[0], "max_ent", 2, late, 1, 3.0, 0.9)
    assert what_is_learned([*rows, more]) == what_is_learned(rows)
    assert what_is_learned([more]) == (
        "With guidance no seed has been run in every pair yet. Without no seed has been run in "
        "every pair yet."
    )


def test_example_images_come_back_as_they_are(tmp_path):
    pixels, _ = write_files(tmp_path)["t10k"]
    keep_example_images(tmp_path, str(tmp_path))
    assert not (tmp_path / "example_images.csv").exists()
    rows = [
        ExampleRow("fashion", "small_cnn", "max_ent", 0, 1, 0, 5, 0.75),
        ExampleRow("fashion", "small_cnn", "max_ent", 0, 1, -1, 2, 0.25),
        ExampleRow("canvas", "small_cnn", "max_ent", 0, 1, 0, 1, 0.5),
        ExampleRow("fashion", "small_cnn", "gauss", 0, 1, 0, 0, 0.5),
    ]
    write_rows(rows, tmp_path / "examples.csv")
    keep_example_images(tmp_path, str(tmp_path))
    found = read_example_images(tmp_path)
    assert sorted(found) == [2, 5]
    assert all(np.array_equal(found[index], pixels[index]) for index in found)


def test_committed_pages_have_the_committed_results():
    tables = results_page.study_tables(
        results_page.STUDY, results_page.LONGER_RUNS, results_page.LARGER_STUDY
    )
    for page, names in (("docs/results.md", tables), ("README.md", ["answer"])):
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        assert results_page.with_tables(text, {name: tables[name] for name in names}) == text


def test_page_has_the_numbers_of_the_recipes():
    study = RECIPES["study"]
    small, narrow, on_canvas, longest = (study[cell] for cell in CELLS)
    assert small == narrow
    assert replace(longest, epochs=small.epochs) == on_canvas
    assert replace(on_canvas, batch_size=small.batch_size) == small
    longer, longer_narrow = (RECIPES["longer"][cell] for cell in (CANVAS, NARROW))
    (larger,) = {recipe.epochs for recipe in RECIPES["larger"].values()}
    decay = f"{training.WEIGHT_DECAY:.0e}".replace("e-0", "e-")
    page = " ".join((REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8").split())
    for words in (
        f"| {small.epochs} epochs, {longest.epochs} for ResNet-18 on the canvas; SGD, momentum "
        f"{training.MOMENTUM}, weight decay {decay}, learning rate up to {small.lr} in the first "
        f"epoch, then down to 0 along a cosine; batches of {small.batch_size} (Fashion-MNIST) and "
        f"{on_canvas.batch_size} (canvas); mirrored, moved by up to two pixels |",
        f"three stages of two 3×3 convolutions with {small.width}, {2 * small.width} and "
        f"{4 * small.width} channels, each stage pooled",
        f"stages of {small.width}, {2 * small.width}, {4 * small.width} and {8 * small.width} ",
        f"the small CNN for {longer.epochs} epochs in place of {on_canvas.epochs}, ResNet-18 for "
        f"{longer_narrow.epochs} in place of {longest.epochs}, and otherwise alike",
        f"at full width, of {larger} epochs, as there is",
        f"*Canvas*: {tasks.CANVAS_TRAIN_IMAGES:,} of them, each once on {tasks.CANVAS_SIZE}×",
        f"its mean over {lambdas.IMAGES_OF_LAMBDAS} test images and channels",
        f"error on {runs.IMAGES_OF_AN_EPOCH:,} test images",
        f"errors on {runs.IMAGES_OF_A_SHIFT:,} of the test images",
        "eight seeds of the four poolings that the question is about, five of the nine others",
    ):
        assert words in page
    assert (len(SEEDS_OF_THE_QUESTION), len(SEEDS)) == (8, 5)
    assert (len(COMPARED), len(BESIDE)) == (3, 9)
    assert (tasks.TRAIN_MARGIN, tasks.TEST_MARGIN, training.WARMUP_EPOCHS) == (2, 8, 1)


@pytest.mark.parametrize("name", results_page.FIGURES)
def test_committed_figures_are_of_the_committed_results(name):
    with Image.open(REPOSITORY / "docs" / name) as figure:
        expected = results_page.digest_of(results_page.STUDY, results_page.FIGURES[name])
        assert figure.info["Source"] == expected


def test_figure_shows_every_difference_and_the_moved_images_of_seeds_that_all_have():
    shifts = [
        ShiftRow("canvas", network, pooling, seed, distance, error + seed)
        for network in NETWORKS
        for pooling in QUESTION
        for seed in (0, 1, 2)
        for distance, error in ((0, 20.0), (1, 30.0))
        if (pooling, seed, network) != ("avg", 2, "resnet18")
    ]
    figure = draw_answers(runs_of(QUESTION), shifts)
    differences_axes, *_, small, narrow = figure.axes
    labels = [text.get_text() for text in differences_axes.get_yticklabels()]
    assert labels == [POOLINGS[other].title for other in COMPARED]
    shown = [container[0].get_xdata().tolist() for container in differences_axes.containers]
    means = differences(mean_errors(runs_of(QUESTION)), COMPARED)
    assert shown[0] == [each.mean for each in means]
    assert [len(of_cell) for of_cell in shown] == [3] * 5
    assert [list(line.get_ydata()) for line in small.lines] == [[21.0, 31.0]] * 4
    assert [list(line.get_ydata()) for line in narrow.lines] == [[20.5, 30.5]] * 4


def test_figure_shows_the_questions_intervals_and_the_numbers_of_what_is_farther():
    steady = {
        "max": [(9, 10, 20, 20), (9.5, 10, 20, 20)],
        "avg": [(9, 10, 20, 20), (9, 10.5, 20, 20)],
        "max_ent_constant": [(9, 10, 20, 20), (9, 10, 20.5, 20)],
        "max_ent": [(8, 9, 19, 19), (8, 9, 19, 19)],
    }
    beside = {
        "skip": [(50, 10, 20, 20)] * 2,
        "gem": [(11, 9, 19, 19), (5, 9, 19, 19)],  # neither better nor worse, and never the same
        "soft": [(15, 10, 20, 20)] * 2,
    }
    errors = {**steady, **beside}
    axes = draw_answers(runs_of(errors), []).axes[0]
    by_group = [mean_errors(runs_of(errors))]
    by_group += [errors_in(runs_of(errors), cell) for cell in CELLS]
    ends = [
        max(-each.low, each.high) for group in by_group for each in differences(group, COMPARED)
    ]
    low, high = axes.get_xlim()
    assert low < -max(ends) < 0 < max(ends) < high == -low
    assert 2 * high > 7
    # Of skip's means -11.25 of the four, and -42, -1, -1, -1; of soft's -2.5, and -7, -1, -1, -1.
    numbers = {text.get_text(): text.xy for text in axes.texts}
    assert numbers == {
        " ◂ -11.2": (low, 3.0),
        " ◂ -42.0": (pytest.approx(0.8 * low), 3.16),
        " ◂ -7.0": (pytest.approx(0.8 * low), 5.16),
    }
    marks = {
        (line.get_marker(), *line.get_xdata(), *line.get_ydata())
        for line in axes.lines
        if line.get_marker() in ("<", ">")
    }
    assert marks == {
        (marker, edge, place) for marker, edge in (("<", low), (">", high)) for place in (4, 4.16)
    }


def test_figure_of_lambda_by_hand():
    guided = [
        lambda_row(cell, "max_ent", seed, done, 1, mean, 0.2)
        for cell in CELLS
        for seed, done, mean in ((0, 0, 0.5), (1, 0, 0.5), (0, 1, 0.2), (1, 1, 0.4))
    ]
    others = [lambda_row(cell, "max_ent_constant", 0, 0, 1, 9.0, 0.2) for cell in CELLS]
    epochs = [EpochRow(*cell, "max_ent", 0, 1, 1.0, 30.0, 25.0) for cell in CELLS]
    of_cell = (*CELLS[0], "max_ent", 0)
    examples = [
        ExampleRow(*of_cell, 1, *each) for each in ((0, 5, 0.75), (1, 7, 0.7), (-1, 2, 0.2))
    ]
    images = {index: np.full((2, 2), index, np.uint8) for index in (2, 5, 7)}
    upper, lower = draw_lambdas(epochs, [*others, *guided], examples, images).subfigs
    rows = np.reshape(upper.axes, (4, len(CELLS)))
    for axes, expected in zip(rows[:3], ([0.5, 0.3], [0.2, 0.2], [0.1, 0.1]), strict=True):
        for panel in axes:
            (line,) = panel.lines
            assert list(line.get_xdata()) == [0, 1]
            assert line.get_ydata() == pytest.approx(expected)
    for panel in rows[3]:
        assert panel.lines[0].get_ydata() == [25.0]
    assert [axes.images[0].get_array()[0, 0] for axes in lower.axes] == [5, 7, 2]
    assert [axes.get_title() for axes in lower.axes] == ["0.75", "0.70", "0.20"]


def test_figure_of_lambda_without_examples_has_none():
    _, lower = draw_lambdas([], [], [], {}).subfigs
    assert lower.axes == []
