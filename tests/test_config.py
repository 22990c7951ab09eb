"""Flags, the frozen Config, and the flagfile that gives a Config back."""

import dataclasses
import pathlib

import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

from pipelines import config, devices
from pipelines.config import Config

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def defined():
    if "stacks" not in flags.FLAGS:
        config.define_flags()


@pytest.fixture
def parse(defined):
    """A function from command line words to a Config."""
    with flagsaver.flagsaver():

        def run(*words: str) -> Config:
            flags.FLAGS(["train_main.py", *words])
            return config.from_flags()

        yield run


CONFIGS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.flags"))
RECIPES = {
    "paper": (8, "newell", 6, "newell", 1.0, 2.5e-4, True),
    "newell": (8, "newell", 6, "newell", 1.75, 2.5e-4, True),
    "pytorch_pose": (2, "pytorch_pose", 6, "pytorch_pose", 1.0, 2.5e-4, False),
    "princeton": (8, "newell", 16, "pytorch_pose", 1.0, 1e-3, True),
}

# A value other than the default for every field; a new field must be added here.
OTHER = {
    "workdir": "runs/other run, with spaces",
    "records": "gs://bucket/records",
    "stacks": 8,
    "blocks": 2,
    "channels": 64,
    "low_channels": 96,
    "bn_people": 50,
    "depth": 3,
    "size": 128,
    "stem": "pytorch_pose",
    "block": "mobile",
    "norm": "group",
    "sync_bn": True,
    "precision": "mixed_bfloat16",
    "batch": 32,
    "accumulate": 4,
    "remat": True,
    "xla": True,
    "recipe": "newell",
    "occluded": "zero",
    "sigma": 1.75,
    "round_centers": True,
    "shuffle_buffer": 5,
    "cache_gb": 0.5,
    "optimizer": "adamw",
    "learning_rate": 1.2345678901234567e-5,
    "schedule": "cosine",
    "drops": "0.5",
    "drop_factor": 0.2,
    "warmup": 0.5,
    "weight_decay": 1e-4,
    "clip_norm": 0.1,
    "average": 0.0,
    "epochs": 1 / 3,
    "steps": 7,
    "seed": 11,
    "deterministic": True,
    "init_from": "runs/first",
    "strategy": "one",
    "logical_devices": 2,
    "steps_per_call": 3,
    "evaluate_every": 0.25,
    "log_every": 9,
    "profile": "100:110",
    "keep": 1,
    "checkpoint": "runs/demo/best",
    "split": "train",
    "weights": "raw",
    "evaluation_batch": 5,
    "flip": False,
    "test_scales": "1.0,0.9,1.1",
    "decode": "argmax",
}


def other() -> Config:
    assert set(OTHER) >= {"workdir", "seed"}
    return Config(**OTHER)


class TestFlagfile:
    def test_every_field_comes_back(self, parse, tmp_path):
        for name, value in OTHER.items():
            assert value != getattr(Config(), name), name
        file = tmp_path / "flags.txt"
        file.write_text(config.to_flagfile(other()))
        assert parse(f"--flagfile={file}") == other()

    def test_no_field_is_untested(self):
        missing = {field.name for field in dataclasses.fields(Config)} - set(OTHER)
        assert not missing, "give each new field a value in OTHER"

    def test_defaults_come_back(self, parse, tmp_path):
        assert parse() == Config()
        file = tmp_path / "flags.txt"
        file.write_text(config.to_flagfile(Config()))
        assert parse(f"--flagfile={file}") == Config()

    def test_later_words_win(self, parse, tmp_path):
        file = tmp_path / "flags.txt"
        file.write_text(config.to_flagfile(other()))
        assert parse(f"--flagfile={file}", "--stacks=4", "--nosync_bn").stacks == 4

    @pytest.mark.parametrize("name", CONFIGS)
    def test_published_configs_parse(self, parse, name):
        assert parse(f"--flagfile={ROOT / name}") != Config(), "a config says something"
        first, *rest = (ROOT / name).read_text().splitlines()
        assert first == f"# python train_main.py --flagfile={name}"
        assert any(line.startswith("# Expected score") or "score:" in line for line in rest)

    @pytest.mark.parametrize("name", ["paper", "newell", "pytorch_pose", "princeton"])
    def test_recipes_say_where_they_come_from(self, parse, name):
        path = ROOT / "configs" / "recipes" / f"{name}.flags"
        header = [line for line in path.read_text().splitlines() if line.startswith("#")]
        for start in ("# Source: ", "# Needs: ", "# Expected score", "# What differs: "):
            assert sum(line.startswith(start) for line in header) == 1, start
        assert any(mean in " ".join(header) for mean in ("mean14", "pooled16"))
        found = parse(f"--flagfile={path}")
        assert found.workdir == f"runs/{name}" and found.round_centers and not found.average

    def test_recipes_are_what_was_published(self, parse):
        """The numbers that make the difference, from each source."""
        recipes = {n: parse(f"--flagfile={ROOT}/configs/recipes/{n}.flags") for n in RECIPES}
        keys = ("stacks", "stem", "batch", "recipe", "sigma", "learning_rate", "flip")
        found = {n: tuple(getattr(c, key) for key in keys) for n, c in recipes.items()}
        assert found == RECIPES
        # Rates at the end of training: divided by 5, constant, a thousandth, 2e-4.
        rates = {
            n: c.learning_rate * c.drop_factor ** len(config.fractions(c.drops))
            for n, c in recipes.items()
        }
        expected = {"paper": 5e-5, "newell": 2.5e-4, "pytorch_pose": 2.5e-7, "princeton": 2e-4}
        assert rates == pytest.approx(expected)


class TestRules:
    @pytest.mark.parametrize(
        "word",
        [
            "--stacks=0",
            "--batch=-1",
            "--batch=six",
            "--learning_rate=0",
            "--learning_rate=nan",
            "--learning_rate=inf",
            "--epochs=inf",
            "--warmup=inf",
            "--warmup=-1",
            "--sigma=0",
            "--average=1",
            "--drop_factor=1.5",
            "--drops=0.7,often",
            "--drops=1.2",
            "--steps=-1",
            "--bn_people=-1",
            "--test_scales=",
            "--test_scales=1,0",
            "--test_scales=big",
            "--test_scales=nan",
            "--seed=-1",
            "--seed=2147483648",
            "--steps_per_call=0",
            "--accumulate=0",
            "--profile=5",
            "--profile=9:9",
            "--profile=-1:3",
            "--profile=first:last",
            "--profile=1:2:3",
            "--evaluate_every=0",
            "--recipe=best",
            "--occluded=maybe",
            "--optimizer=sgd",
            "--schedule=linear",
            "--precision=float16",
            "--stem=resnet",
            "--block=transformer",
            "--norm=layer",
            "--decode=best",
            "--split=holdout",
            "--weights=worst",
            "--strategy=tpu",
            "--sync_bn=perhaps",
            "--no_such_flag=1",
        ],
    )
    def test_values_outside_the_rules(self, parse, word):
        """The message names the flag; a rule or the choices say what is allowed."""
        name = word.split("=")[0].strip("-")
        with pytest.raises(flags.Error, match=name) as refused:
            parse(word)
        allowed = ("must", "should be one of", "Unknown", "Non-boolean", "invalid literal")
        assert any(text in str(refused.value) for text in allowed), str(refused.value)

    @pytest.mark.parametrize("drops", ["", "0.5", "0.7,0.9", " 0.1, 0.2 ,0.3"])
    def test_drops(self, parse, drops):
        assert parse(f"--drops={drops}").drops == drops

    def test_fractions(self):
        assert config.fractions(" 0.1, 0.2,") == [0.1, 0.2]
        assert config.fractions("") == []

    def test_config_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            Config().stacks = 3

    def test_every_rule_has_its_text(self):
        named = [name for names in config._RULE_TEXTS for name in names.split()]
        assert sorted(named) == sorted(config._RULES)


class TestDifferences:
    def test_same(self):
        assert config.differences(config.to_flagfile(other()), other()) == []

    def test_names_what_training_depends_on(self):
        now = dataclasses.replace(other(), stacks=4, sync_bn=False)
        assert config.differences(config.to_flagfile(other()), now) == [
            "--stacks: 8 there, 4 here",
            "--sync_bn: true there, false here",
        ]

    def test_free_flags_may_change(self):
        changes = {"workdir": "x", "keep": 9, "log_every": 1, "evaluation_batch": 1, "flip": True}
        now = dataclasses.replace(other(), **changes)
        assert config.differences(config.to_flagfile(other()), now) == []

    def test_exactly_these_fields_are_free(self):
        free = {field.name for field in dataclasses.fields(Config) if field.metadata["free"]}
        assert free == {
            "bn_people",
            *("workdir", "records", "strategy", "logical_devices", "steps_per_call"),
            *("evaluate_every", "log_every", "keep"),
            *("checkpoint", "split", "weights", "evaluation_batch", "flip", "decode"),
            *("test_scales", "accumulate", "remat", "xla", "profile", "cache_gb"),
        }

    def test_a_flag_that_an_older_version_did_not_have(self):
        older = config.to_flagfile(Config()).replace("--sigma=1.0\n", "")
        assert config.differences(older, Config()) == []
        wider = Config(sigma=2.0)
        assert config.differences(older, wider) == ["--sigma: 1.0 there, 2.0 here"]


@pytest.mark.parametrize(
    ("facts", "want"),
    [
        ("flags : fpu sse4_2 avx2 avx512f\n", "float32"),
        ("flags : fpu avx512f avx512_bf16\n", "mixed_bfloat16"),
        ("flags : fpu amx_bf16 amx_tile\n", "mixed_bfloat16"),
        (None, "float32"),  # as on macOS
    ],
)
@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="the GPU decides here")
def test_bf16_only_where_the_cpu_has_it(tmp_path, facts, want):
    path = tmp_path / "cpuinfo"
    if facts:
        path.write_text(facts)
    assert devices.fast_precision(str(path)) == want


def test_auto_is_what_this_machine_computes_fast(parse):
    assert parse("--precision=auto").precision == devices.fast_precision()
