"""What is run, and what is asked of it: written down before the results.

Poolings, networks, measure and tests were fixed before the first run, and the recipes but for two
numbers. While the first eleven runs were made (of ``max``, ``avg``, ``max_ent`` and
``max_ent_constant``, seed 0), three things changed, and none for what they came to: ResNet-18 on
the canvas has 16 epochs, not 12, for in a pilot's twelfth it still gained half a point (that pilot
was of the canvas as it was then: commit 0d8f9fd); the canvas's test images, which had had less
clutter than those to train on, have as much, and the three runs on the canvas were thrown away and
made again; a λ, p or proportion that is learned itself does not decay. (An earlier study of 180
steps, which is gone, had scored six of these poolings on the same test images.)

The pilot (``pilot.csv``) saw max pooling and training images alone. It is there to see that max
pooling trains with these numbers, and what its last epoch still gains. But for the 16 epochs, other
numbers were not tried, nor those of other poolings. Its rows of the canvas were made again with the
new canvas.

**Measured** is the top-1 error on all test images after the last epoch, never of the best one. Of
what is recorded during training (the error on 2,000 test images after each epoch, and λ) nothing
decides anything in the study; that there are longer runs was decided by it.

**The question**: is the error under guided Max-Ent pooling with a sigmoid, as published, another
one than under max pooling, under average pooling, and under the same layer whose head sees a
constant (as many parameters, no guidance)? For each seed the error is averaged over the four pairs
of task and network, and the eight differences of two poolings are one paired t-test; Holm's
correction is for these three tests. README's sentence is about these three intervals, whichever way
they fall.

**Beside it**, guided Max-Ent pooling against each of the nine others, averaged likewise, over five
seeds; Holm's correction is for these nine. They say how large differences are, and are not counted
as answers to the question. Within each pair of task and network, differences have intervals and no
tests.

**The larger runs** (``--device cuda``) have the same comparisons with intervals, and no tests.

**The longer runs** (``longer``) were added when 270 of the study's 308 runs were there, and because
of them. A network should be trained until an epoch gains less than 0.1 points: that was the aim
when the study was asked for, and it is not in the first versions of this plan. In its last epoch
the small CNN on the canvas still gained 0.24 points (on 2,000 test images, mean over max, average
and guided pooling and the eight seeds), ResNet-18 there 0.11, both networks on Fashion-MNIST less
than 0.1; the pilot's, of one run under max pooling, 0.3 in both networks on the canvas. So the
question's four poolings are trained in the first of these pairs once more, by the same recipe but
for 36 epochs in place of 12, under the same eight seeds. What is asked is what becomes of the three
differences, and what is reported are these, with intervals, and by how much they have changed, with
intervals; no tests. The pair is the one where the differences are largest, so that they may well be
smaller in a repetition of any kind. The study's answer stays that of the study's own runs.

ResNet-18 on the canvas was first left as it is, for what it would cost. It was added, with 32
epochs in place of 16, when two of the small CNN's longer runs were there (max and average pooling,
seed 0) and none of its own; its runs come after the small CNN's, and what is reported of them is
the same. Reported is, too, once a pair's longer runs are all there, what the question's three
differences over the four pairs are with these in place of the study's own: with intervals, and no
tests.

Before all eight seeds of the question are there, nothing is called significant (which was decided
when sixteen runs were there). No run is left out, and but for those three none is made again. If
the plan is not finished, what is reported is of the seeds that every pair of task and network has.

**Not planned**, but seen to be wanted when the question's runs were there: the question's
differences without the pair where they are largest, those of moved test images, and that of the
head that sees a constant from max pooling. They have intervals and no tests.
"""

from dataclasses import dataclass

from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.training import Recipe

GUIDED = "max_ent"
COMPARED = ("max", "avg", "max_ent_constant")
SEEDS, SEEDS_OF_THE_QUESTION = range(5), range(8)


@dataclass(frozen=True)
class PlannedRun:
    """One network to be trained.

    Attributes:
        task: one of ``tasks.TASKS``.
        network: one of ``networks.NETWORKS``.
        pooling: one of ``poolings.POOLINGS``.
        seed: of the weights, the order of the images, and what happens to each.
        recipe: how it is trained.
    """

    task: str
    network: str
    pooling: str
    seed: int
    recipe: Recipe

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells it from the others of a plan."""
        return self.task, self.network, self.pooling, self.seed


def plan_of(name: str) -> list[PlannedRun]:
    """Return the runs of one of ``RECIPES`` in the order to make them.

    Those of the question come first, and all of a seed before the next seed, so that what has been
    run can be compared at any time; of the longer runs, those of a pair before the next pair.
    """
    of_the_question = (*COMPARED, GUIDED)
    others = tuple(pooling for pooling in POOLINGS if pooling not in of_the_question)
    cells = RECIPES[name].items()
    if name == "longer":
        parts = [([cell], of_the_question, SEEDS_OF_THE_QUESTION) for cell in cells]
    else:
        parts = [(cells, of_the_question, SEEDS_OF_THE_QUESTION), (cells, others, SEEDS)]
    return [
        PlannedRun(task, network, pooling, seed, recipe)
        for cells_of_part, poolings, seeds in parts
        for seed in seeds
        for (task, network), recipe in cells_of_part
        for pooling in poolings
    ]


RECIPES = {
    "study": {
        ("fashion", "small_cnn"): Recipe(width=8, epochs=12, batch_size=128, lr=0.1),
        ("fashion", "resnet18"): Recipe(width=8, epochs=12, batch_size=128, lr=0.1),
        ("canvas", "small_cnn"): Recipe(width=8, epochs=12, batch_size=64, lr=0.1),
        ("canvas", "resnet18"): Recipe(width=8, epochs=16, batch_size=64, lr=0.1),
    },
    "longer": {
        ("canvas", "small_cnn"): Recipe(width=8, epochs=36, batch_size=64, lr=0.1),
        ("canvas", "resnet18"): Recipe(width=8, epochs=32, batch_size=64, lr=0.1),
    },
    "larger": {
        ("fashion", "resnet18"): Recipe(width=64, epochs=30, batch_size=128, lr=0.1),
        ("canvas", "resnet18"): Recipe(width=64, epochs=30, batch_size=64, lr=0.1),
    },
}
