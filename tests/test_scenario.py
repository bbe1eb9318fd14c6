"""Mistakes in a scenario file: each is refused with its line, its field and the nearest valid name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from justai_sim.cli import run
from justai_sim.errors import DataError
from justai_sim.scenario import Lines, notes, packaged, parse
from justai_sim.sim.cost import cost

WELCOME = (packaged() / "welcome.toml").read_text(encoding="utf-8")


def refusal(text: str) -> str:
    with pytest.raises(DataError) as e:
        parse(text, "mine.toml")
    return str(e.value)


def line(text: str, mark: str) -> int:
    """The line of the only place where `mark` stands."""
    assert text.count(mark) == 1, mark
    return text[: text.index(mark)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('esp = "braze"', 'esp = "brase"', "esp 'brase' is not known; did you mean 'braze'?"),
        ('name = "weighted_thompson"', 'name = "unifrm"', "policy.name is 'unifrm'; did you mean 'uniform'?"),
        ("[program.policy]", "[program.policy]\nepsilon = 1.5#", "policy.epsilon is 1.5"),
        ("[program.policy]", "[program.policy]\nepsilom = 0.5#", "did you mean 'epsilon'?"),
        ("offset_days = 3\n", "offset_days = -3\n", "offset_days is -3"),
        ("offset_days = 3\n", 'credit = "linea"\n', "did you mean 'linear'?"),
        ('law = "exponential"', 'law = "weibul"',
         "'world.delay.law': Invalid enum value 'weibul'; did you mean 'weibull'"),
        ('law = "lognormal"', 'law = "lognorml"', "did you mean 'lognormal'?"),
        ("mean_days = 1.5", "mean_dys = 1.5", "did you mean 'mean_days'?"),
        ("mean_days = 1.5", "mean_days = -1.5", "mean_days is -1.5"),
        ('key_metric = "conversion_rate"', 'key_metric = "conversion_rat"', "did you mean 'conversion_rate'?"),
        ("schema_version = 1", "schema_version = 2", "Invalid enum value 2; valid: 1"),
        ("conversion_rate = 0.021", "conversion_rate = 2.1", "conversion_rate of variant 'story' is 2.1"),
        ("conversion_rate = 0.021", "conversion_rat = 0.021", "did you mean 'conversion_rate'?"),
        ('id = "welcome-4"\nday = 10', 'id = "welcome-4"\ndya = 10', "did you mean 'day'?"),
        ("day = 10", "day = -10", "day of flow step 'welcome-4' is -10"),
        ("day = 10", 'day = "10"', "Expected `float`, got `str`"),
        ('name = "weighted_thompson"', 'warm_start = { storey = [10, 2] }', "did you mean 'story'?"),
        ('name = "weighted_thompson"', 'name="fixed"\nshares = { control = 1 }', "names 'control', the control"),
        ('goals = ["purchase"]', 'goals = ["purchase", "purchase"]', "goals names 'purchase' twice"),
        ('name = "weighted_thompson"', "floor = 0.5", "expected at most 0.3333: template 'welcome-1' has 3 variants"),
        ("refresh_hours = 24", 'themes = { storey = ["warm"] }', "did you mean 'story'?"),
        ("refresh_hours = 24", 'themes = { story = [""] }', "expected texts"),
        ('id = "welcome-4"', 'id = "welcome-3" # again', "template 'welcome-3' is named twice"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(old: str, new: str, says: str) -> None:
    text = WELCOME.replace(old, new, 1)
    expected = line(WELCOME, old) + new.count("\n") * (not new.endswith("\n"))
    said = refusal(text)
    assert says in said
    assert said.startswith("mine.toml:")
    at = int(said.split(":")[1])
    if "named twice" in says:
        assert at == expected - 1, "the header of the second of them"
    else:
        assert at == expected


INLINE = """\
variants = [
  {id = "c", conversion_rate = 0.1},
  {id = "d", conversion_rate = 0.2, delay = {law = "weibull"}},
]
"""
TABLES = """\
[[flow.variants]]
id = "c"
conversion_rate = 0.1
[[flow.variants]]
id = "d"
conversion_rate = 0.2
[flow.variants.delay]
"law" = "weibull"
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "welcome"', 'name = ".."', "no '.' first"),
        ('id = "benefit"', 'id = ""', "id of a variant is ''"),
        ('id = "benefit"', 'id = "a\\u0000"', "expected a text that can be read"),
        ('id = "welcome-2"', 'id = " "', "id of a template is ' '"),
        ('goals = ["purchase"]', 'goals = [""]', "goal (program.goals) is ''"),
        ("refresh_hours = 24", "refresh_hours = 0.001", "1,344,000 refreshes in a run"),
        ("refresh_hours = 24", "refresh_hours = 1e-12", "expected at most 100,000"),
        ("conversion_rate = 0.021", "conversion_rate = 0.021\nfrom_day = 56", "the run has 56 days"),
        (
            "conversion_rate = 0.021",
            'conversion_rate = 0.021\nvalue = { currency = "EUR" }',
            "currency of variant 'story' is 'EUR'; expected that of the world, 'USD'",
        ),
        ("offset_days = 3", 'offset_days = 3\ngroups = { welcom-1 = "w" }', "did you mean 'welcome-1'?"),
        ("signups_per_day = 400", "history_days = 1e6", "history_days is 1000000.0; expected 0 to 3650"),
        ('{ law = "exponential", mean_days = 1.5 }', '{ law = "empirical", days = [1.0, nan] }', "days holds nan"),
        (
            "attributes = { plan = { free = 1, paid = 1 } }",
            "attributes = { " + ", ".join(f"a{i} = {{ x = 1, y = 1 }}" for i in range(14)) + " }",
            "16,384 combinations",
        ),
        (
            "refresh_hours = 24",
            'segments = { plan = ["fre", "paid"] }',
            "no user of the world has 'fre'; did you mean 'free'?",
        ),
    ],
)
def test_what_no_run_could_do_is_refused(old: str, new: str, says: str) -> None:
    text = WELCOME.replace(
        "signups_per_day = 400", "signups_per_day = 400\nattributes = { plan = { free = 1, paid = 1 } }"
    )
    assert old in text
    assert says in refusal(text.replace(old, new, 1))


def test_segments_name_the_values_of_the_world_in_any_case():
    text = WELCOME.replace("signups_per_day = 400", "attributes = { plan = { Free = 1, paid = 1 } }")
    text = text.replace("refresh_hours = 24", 'segments = { plan = ["FREE", "paid"] }')
    assert parse(text, "mine.toml").program.segments == {"plan": ["FREE", "paid"]}


@pytest.mark.parametrize("setting", ['name = "fixed"\nshares = { a = 1, b = 1 }', "warm_start = { a = [10, 1] }"])
def test_what_is_the_control_of_any_template_is_given_nothing(setting: str) -> None:
    """Each is the other's control: refused when the file is read, with the line, and not when the run starts."""
    text = f'name = "x"\n[program.policy]\n{setting}\n'
    for t, variants in (("t1", "ab"), ("t2", "ba")):
        told = ", ".join(f'{{ id = "{v}", conversion_rate = 0.1 }}' for v in variants)
        text += f'[[flow]]\nid = "{t}"\nday = 0\nvariants = [{told}]\n'
    said = refusal(text)
    assert "names 'a', the control of template 't1'" in said
    assert said.startswith(f"mine.toml:{line(text, setting.splitlines()[-1])}: ")


NOTED = WELCOME.replace("clean = true", "clean = false")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("conversion_rate = 0.021", "conversion_rate = 0.021\nfrom_day = 30", ""),
        ("conversion_rate = 0.012", "conversion_rate = 0.012\nuntil_day = 30", ""),
        ("clean = false", "clean = false\nwrong_name_share = 0.1", ""),
        ("clean = false", "clean = false\nwrong_name_share = 0.1 # v2", "'purchase_v2' is among the goals"),
        ("clean = false", "clean = true\nwrong_name_share = 0.1 # v2", ""),
        ("clean = false", "clean = false\nrenamed_from_day = 20 # v2", "'purchase_v2' is among the goals"),
        ("conversion_rate = 0.021", "conversion_rate = 0.8\ndrift = 0.1", ""),
        ("conversion_rate = 0.021", "conversion_rate = 0.8\ndrift = 0.2", "some would convert with probability 1.16"),
        ("conversion_rate = 0.021", "conversion_rate = 0.8\nnovelty = 0.5", "would convert with probability 1.2"),
        ("signups_per_day = 400", "conversion_spread = 1.0", ""),
        ("signups_per_day = 400", "conversion_spread = 5.0", "variant 'story': some would convert with probability"),
        ("signups_per_day = 400", "engagement_spread = 1.0", "'control': some would open with probability 2.07"),
        ("signups_per_day = 400", "shocks = [{ day = 10, conversion = 50 }]", "would convert with probability 1.05"),
        ("signups_per_day = 400", "shocks = [{ day = 90, conversion = 50 }]", ""),
        ("signups_per_day = 400", "click_effect = 40", ""),
        ("signups_per_day = 400", "click_effect = 40\nshocks = [{ day = 10, conversion = 3 }]", "probability 1.16"),
    ],
)  # fmt: skip
def test_what_is_allowed_and_perhaps_not_meant_is_noted(old: str, new: str, says: str) -> None:
    text = NOTED.replace(old, new, 1)
    if "v2" in new:
        text = text.replace('goals = ["purchase"]', 'goals = ["purchase", "purchase_v2"]')
    found = notes(parse(text, "x"))
    assert any(says in n for n in found) if says else not found, found


def test_variants_that_are_never_there_together_are_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = WELCOME.replace("conversion_rate = 0.021", "conversion_rate = 0.021\nfrom_day = 30")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("conversion_rate = 0.012", "conversion_rate = 0.012\nuntil_day = 30"))
    assert run(["check", str(path)]) == 0
    said = capsys.readouterr().out
    assert "note: template 'welcome-1': 'discount' is archived on day 30, 'story' is added on day 30" in said
    assert run(["check", "welcome"]) == 0
    assert "note" not in capsys.readouterr().out


def test_refreshes_cost_time() -> None:
    """Hourly ones of a small world take most of it; those of policies that integrate anew more. Measured: 2.9 s for 50
    worlds of 20 days with 1,400 sends and hourly refreshes, .15 s with daily ones."""
    raw = WELCOME.replace("signups_per_day = 400", "signups_per_day = 20").replace("days = 56", "days = 20")

    def seconds(text: str) -> float:
        return 50 * cost(parse(text, "x")).seconds

    daily, hourly = seconds(raw), seconds(raw.replace("refresh_hours = 24", "refresh_hours = 1"))
    assert 0.15 < daily < 0.15 * 4
    assert 2.9 / 2 < hourly < 2.9 * 2
    slow = raw.replace('name = "weighted_thompson"', 'name = "gamma_poisson"', 1)
    assert seconds(slow) > 3 * daily - 0.3


@pytest.mark.parametrize("variants", [INLINE, TABLES])
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("conversion_rate = 0.2", "conversion_rate = 3", "variant 'd' is 3"),
        ("conversion_rate = 0.2", "conversion_rat = 0.2", "'flow[1].variants[1]'"),
        ('"weibull"', '"weibul"', "did you mean 'weibull'?"),
    ],
)
def test_variants_of_a_step(variants: str, old: str, new: str, says: str) -> None:
    head = 'name = "x"\n[[flow]]\nid = "a"\nday = 1\nvariants = [{id = "c", conversion_rate = 0.1}]\n'
    good = head + '[[flow]]\nid = "b"\nday = 2\n' + variants
    parse(good, "x")
    said = refusal(good.replace(old, new))
    assert said.startswith(f"mine.toml:{line(good, old)}: "), said
    assert says in said


SWEEP = WELCOME[: WELCOME.index("[sweep.window]")]


@pytest.mark.parametrize(
    ("sweep", "mark", "says"),
    [
        ('[sweep]\n"seed" = [0]\n"program.rule.lookbak_days" = [7]', "lookbak", "did you mean 'lookback_days'"),
        ('[sweep]\n"program.policy.name" = [\n  "uniform",\n  "unifrm",\n]', '"unifrm"', "did you mean 'uniform'"),
        ('[sweep]\n"world.delay.law" = ["weibul"]', "weibul", "did you mean 'weibull'"),
        ('[sweep.w]\na = { "program.rule.offset_days" = 1 }\nb = { "program.rule.offset_days" = 20 }', "b =",
         "not below"),
        ('[sweep]\n"program.policy.name" = "uniform"', "program.policy.name", "expected a list of values"),
        ('[sweep]\n"program.policy.name" = []', "program.policy.name", "has no values"),
        ('[sweep]\nseed = [1]\n"variants.9.conversion_rate" = [0.1]', "variants.9", "has no '9'"),
        (f"[sweep]\nseed = {list(range(101))}\ndays = {list(range(1, 102))}", "[sweep]", "expected at most 10,000"),
        ("[sweep]\nseed = [1, 2,\n 1]", "seed", "has '1' 2 times"),
        ('[sweep]\n"world.bounce_rate" = {low = 0, high = 0.1}', "world.bounce_rate", "expected a table [sweep"),
        ('[sweep]\n"world.bounce_rate" = {low = 0, hgih = 0.1}', "world.bounce_rate", "did you mean 'high'?"),
        ('[sweep]\n"world.bounce_rate" = {low = 0.2, high = 0.1}', "world.bounce_rate", "expected low below high"),
        ('[sweep]\n"world.bounce_rate" = {low = 0, high = 1, scale = "lgo"}', "world.bounce_rate", "mean 'log'?"),
        ('[sweep]\ndays = {low = 1.5, high = 9, integer = true}', "days", "expected whole numbers"),
        ('[sweep.design]\nkind = "random"\npoints = 3', "[sweep.design]", "there is no range"),
        ('[sweep]\ndays = {low = 1, high = 9}\n[sweep.design]\nkind = "latin"\npoints = 3', "kind",
         "valid: latin_hypercube, random"),
        ('[sweep]\ndays = {low = 1, high = 9}\n[sweep.design]\nkind = "random"\npoints = 0', "[sweep.design]",
         "points is 0"),
    ],
)  # fmt: skip
def test_a_wrong_axis_is_found_when_the_scenario_is_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, sweep: str, mark: str, says: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SWEEP + sweep + "\n", encoding="utf-8")
    at = SWEEP.count("\n") + line(sweep, mark)
    assert run(["check", str(path)]) == 3
    said = capsys.readouterr().err
    assert f"{path}:{at}: sweep" in said
    assert says in said


def test_axes_that_are_right_only_together_are_right() -> None:
    both = '[sweep]\n"program.rule.offset_days" = [20]\n"program.rule.lookback_days" = [30]\n'
    assert parse(SWEEP + both, "x").sweep


def test_every_value_of_a_toml_text_has_its_line() -> None:
    text = """# a comment with = and [x]
a.b = 1.5 # more
"q.r" = ['x', \"\"\"
  two = "lines" # no comment
\"\"\",
  2026-01-05 00:00:00Z, # a date
  {c = [1,
   2], 'd' = {}},
]
[t . u]
v = ''
[[t.w]]
[[t.w]]
x = "\\"["
[t.w.y]
z = true
"""
    tomllib.loads(text)
    found = Lines(text).of
    q = "q.r"
    assert found == {
        ("a",): 2, ("a", "b"): 2, (q,): 3, (q, 0): 3, (q, 1): 3, (q, 2): 6, (q, 3): 7, (q, 3, "c"): 7,
        (q, 3, "c", 0): 7, (q, 3, "c", 1): 8, (q, 3, "d"): 8, ("t",): 10, ("t", "u"): 10, ("t", "u", "v"): 11,
        ("t", "w"): 12, ("t", "w", 0): 12, ("t", "w", 1): 13, ("t", "w", 1, "x"): 14, ("t", "w", 1, "y"): 15,
        ("t", "w", 1, "y", "z"): 16,
    }  # fmt: skip
