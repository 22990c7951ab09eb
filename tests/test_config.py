"""Flags, the frozen Config, and the flagfile that gives a Config back."""

import dataclasses
import pathlib

import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

from pipelines import cli, config, devices
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
    "precise_bn_examples": 50,
    "depth": 3,
    "size": 128,
    "stem": "pytorch_pose",
    "block": "mobile",
    "norm": "group",
    "sync_bn": True,
    "precision": "mixed_bfloat16",
    "global_batch_size": 32,
    "accumulation_steps": 4,
    "remat": True,
    "xla": True,
    "augmentation": "newell",
    "occluded": "zero",
    "sigma": 1.75,
    "round_centers": True,
    "shuffle_buffer": 5,
    "cache_gb": 0.5,
    "optimizer": "adamw",
    "learning_rate": 1.2345678901234567e-5,
    "lr_schedule": "cosine",
    "lr_milestones": "0.5",
    "lr_drop_factor": 0.2,
    "warmup_epochs": 0.5,
    "weight_decay": 1e-4,
    "clip_norm": 0.1,
    "ema_decay": 0.0,
    "epochs": 1 / 3,
    "steps": 7,
    "seed": 11,
    "deterministic": True,
    "init_from": "runs/first",
    "strategy": "one",
    "logical_devices": 2,
    "evaluate_every": 0.25,
    "log_every": 9,
    "profile": "100:110",
    "max_checkpoints": 1,
    "checkpoint": "runs/demo/best",
    "split": "train",
    "weights": "raw",
    "evaluation_batch_size": 5,
    "flip": False,
    "test_scales": "1.0,0.9,1.1",
    "decoder": "argmax",
    "bn_momentum": 0.99,
    "bn_epsilon": 1e-3,
    "rmsprop_rho": 0.9,
    "rmsprop_epsilon": 1e-7,
    "rmsprop_epsilon_inside": True,
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
        missing -= {"network"}  # which has no other value yet
        assert not missing, "give each new field a value in OTHER"

    @pytest.mark.parametrize("config_of", [other, Config])
    def test_every_field_comes_back_without_flags(self, config_of):
        assert config.from_flagfile(config.to_flagfile(config_of())) == config_of()

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
        assert parse(f"--flagfile={ROOT / name}") != Config(), "a config changes something"
        first, *rest = (ROOT / name).read_text().splitlines()
        assert first == f"# python train_main.py --flagfile={name}"
        assert any(line.startswith("# Expected score") or "score:" in line for line in rest)

    @pytest.mark.parametrize("name", ["paper", "newell", "pytorch_pose", "princeton"])
    def test_recipes_name_their_sources(self, parse, name):
        path = ROOT / "configs" / "recipes" / f"{name}.flags"
        header = [line for line in path.read_text().splitlines() if line.startswith("#")]
        for start in ("# Source: ", "# Needs: ", "# Expected score", "# What differs: "):
            assert sum(line.startswith(start) for line in header) == 1, start
        assert any(mean in " ".join(header) for mean in ("mean14", "pooled16"))
        parsed = parse(f"--flagfile={path}")
        assert parsed.workdir == f"runs/{name}"
        assert parsed.round_centers and not parsed.ema_decay

    def test_recipes_are_what_was_published(self, parse):
        """The settings in which they differ, from each source."""
        recipes = {n: parse(f"--flagfile={ROOT}/configs/recipes/{n}.flags") for n in RECIPES}
        keys = (
            "stacks",
            "stem",
            "global_batch_size",
            "augmentation",
            "sigma",
            "learning_rate",
            "flip",
        )
        values = {n: tuple(getattr(c, key) for key in keys) for n, c in recipes.items()}
        assert values == RECIPES
        # Rates at the end of training: divided by 5, constant, a thousandth, 2e-4.
        rates = {
            n: c.learning_rate * c.lr_drop_factor ** len(config.fractions(c.lr_milestones))
            for n, c in recipes.items()
        }
        expected = {"paper": 5e-5, "newell": 2.5e-4, "pytorch_pose": 2.5e-7, "princeton": 2e-4}
        assert rates == pytest.approx(expected)


class TestRules:
    @pytest.mark.parametrize(
        "word",
        [
            "--stacks=0",
            "--global_batch_size=-1",
            "--global_batch_size=six",
            "--learning_rate=0",
            "--learning_rate=nan",
            "--learning_rate=inf",
            "--epochs=inf",
            "--warmup_epochs=inf",
            "--warmup_epochs=-1",
            "--sigma=0",
            "--ema_decay=1",
            "--lr_drop_factor=1.5",
            "--lr_milestones=0.7,often",
            "--lr_milestones=1.2",
            "--steps=-1",
            "--precise_bn_examples=-1",
            "--test_scales=",
            "--test_scales=1,0",
            "--test_scales=big",
            "--test_scales=nan",
            "--seed=-1",
            "--seed=2147483648",
            "--accumulation_steps=0",
            "--profile=5",
            "--profile=9:9",
            "--profile=-1:3",
            "--profile=first:last",
            "--profile=1:2:3",
            "--evaluate_every=0",
            "--augmentation=best",
            "--occluded=maybe",
            "--optimizer=sgd",
            "--lr_schedule=linear",
            "--precision=float16",
            "--stem=resnet",
            "--block=transformer",
            "--norm=layer",
            "--decoder=best",
            "--split=holdout",
            "--weights=worst",
            "--strategy=tpu",
            "--sync_bn=perhaps",
            "--bn_momentum=1",
            "--bn_epsilon=0",
            "--rmsprop_rho=1",
            "--rmsprop_epsilon=0",
            "--no_such_flag=1",
        ],
    )
    def test_values_outside_the_rules(self, parse, word):
        """The message names the flag and gives the rule or the choices."""
        name = word.split("=")[0].strip("-")
        with pytest.raises(flags.Error, match=name) as error:
            parse(word)
        allowed = (
            "must",
            "is not a",
            "should be one of",
            "Unknown",
            "Non-boolean",
            "invalid literal",
        )
        assert any(text in str(error.value) for text in allowed), str(error.value)

    @pytest.mark.parametrize("milestones", ["", "0.5", "0.7,0.9", " 0.1, 0.2 ,0.3"])
    def test_milestones(self, parse, milestones):
        assert parse(f"--lr_milestones={milestones}").lr_milestones == milestones

    def test_fractions(self):
        assert config.fractions(" 0.1, 0.2,") == [0.1, 0.2]
        assert config.fractions("") == []

    def test_config_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            Config().stacks = 3


class TestEarlierNames:
    """Flags of earlier versions: a sentence on the command line, the same run in a folder."""

    RENAMED = {
        "batch": "global_batch_size",
        "evaluation_batch": "evaluation_batch_size",
        "accumulate": "accumulation_steps",
        "recipe": "augmentation",
        "schedule": "lr_schedule",
        "drops": "lr_milestones",
        "drop_factor": "lr_drop_factor",
        "warmup": "warmup_epochs",
        "average": "ema_decay",
        "bn_people": "precise_bn_examples",
        "keep": "max_checkpoints",
        "decode": "decoder",
    }

    @pytest.mark.parametrize("former", RENAMED)
    def test_a_flagfile_s_error_gives_the_new_name(self, defined, tmp_path, capsys, former):
        file = tmp_path / "flags.txt"
        file.write_text(f"--stacks=2\n--{former}=1\n")
        with pytest.raises(SystemExit) as left:
            cli._parse(["train_main.py", f"--flagfile={file}"], "")
        assert left.value.code == 1
        sentence = f"error: --{former}: it is now called --{self.RENAMED[former]}; see {file} ("
        assert sentence in capsys.readouterr().err

    def test_a_flag_without_a_successor(self, defined, capsys):
        with pytest.raises(SystemExit):
            cli._parse(["train_main.py", "--steps_per_call=50"], "")
        error = capsys.readouterr().err
        assert error.startswith("error: --steps_per_call: it no longer exists, because")

    def test_an_earlier_run_is_the_same_run(self):
        """flags.txt of a run that an earlier version started, resumed by this one."""
        text = config.to_flagfile(other())
        for former, name in self.RENAMED.items():
            text = text.replace(f"--{name}=", f"--{former}=")
        assert "--recipe=newell" in text
        text += "--steps_per_call=50\n"
        assert config.differences(text, other()) == []
        now = dataclasses.replace(other(), ema_decay=0.5)
        assert config.differences(text, now) == ["--ema_decay: 0.0 there, 0.5 here"]


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
        changes = {
            "workdir": "x",
            "max_checkpoints": 9,
            "log_every": 1,
            "evaluation_batch_size": 1,
            "flip": True,
        }
        now = dataclasses.replace(other(), **changes)
        assert config.differences(config.to_flagfile(other()), now) == []

    def test_exactly_these_fields_are_free(self):
        free = {field.name for field in dataclasses.fields(Config) if field.metadata["may_change"]}
        assert free == {
            "precise_bn_examples",
            *("workdir", "records", "strategy", "logical_devices"),
            *("evaluate_every", "log_every", "max_checkpoints"),
            *("checkpoint", "split", "weights", "evaluation_batch_size", "flip", "decoder"),
            *("test_scales", "accumulation_steps", "remat", "xla", "profile", "cache_gb"),
        }

    def test_a_flag_that_an_older_version_did_not_have(self):
        older = config.to_flagfile(Config()).replace("--sigma=1.0\n", "")
        assert config.differences(older, Config()) == []
        wider = Config(sigma=2.0)
        assert config.differences(older, wider) == ["--sigma: 1.0 there, 2.0 here"]


@pytest.mark.parametrize(
    ("cpuinfo", "want"),
    [
        ("flags : fpu sse4_2 avx2 avx512f\n", "float32"),
        ("flags : fpu avx512f avx512_bf16\n", "mixed_bfloat16"),
        ("flags : fpu amx_bf16 amx_tile\n", "mixed_bfloat16"),
        (None, "float32"),  # as on macOS
    ],
)
@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="the GPU decides here")
def test_bf16_only_where_the_cpu_has_it(tmp_path, cpuinfo, want):
    path = tmp_path / "cpuinfo"
    if cpuinfo:
        path.write_text(cpuinfo)
    assert devices.fast_precision(str(path)) == want


def test_auto_is_what_this_machine_computes_fast(parse):
    assert parse("--precision=auto").precision == devices.fast_precision()
