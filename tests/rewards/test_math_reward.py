"""math: what equals what, worked by hand. What is read in part, too late or not at all becomes no score."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from making import made

from selfrefine.errors import ConfigError
from selfrefine.records import Message, Reward, Sample, Task


def judge(text: str, *references: str, **settings: Any) -> Reward:
    task = Task(id="t", prompt=(Message(role="user", content="?"),), references=references)
    rewards: list[Reward] = made("math", **settings).score([Sample(id="s", task=task, text=text)])
    return rewards[0]


def test_without_its_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ConfigError, match=r"selfrefine\[math\]"):
        made("math")


class TestWithTheExtra:
    @pytest.fixture(autouse=True)
    def extra(self) -> None:
        pytest.importorskip("math_verify", reason="the extra selfrefine[math] is not installed")

    @pytest.mark.parametrize(
        ("text", "reference", "value"),
        [
            (r"So it is $\frac{2}{8}$.", "0.25", 1.0),
            (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", 1.0),
            (r"The answer is $x^2 + 2x + 1$", "(x+1)^2", 1.0),
            (r"$\{3, 1\}$", r"\{1, 3\}", 1.0),
            (r"$x = 4$", "4", 1.0),
            (r"$(1, \infty)$", r"(1, \infty)", 1.0),
            (r"\boxed{\frac{\pi}{6}}", r"$\frac{\pi}{6}$", 1.0),
            ("3 x 10^5", "300000", 1.0),
            ("He pays $18.", "He has 20 - 2 = 18.\n#### 18", 1.0),
            (r"$\frac{2}{9}$", "0.25", 0.0),
            (r"$[1, \infty)$", r"(1, \infty)", 0.0),
            (r"\boxed{12}", r"\sqrt{12}", 0.0),
            ("I do not know.", "4", 0.0),
            # read in part these would be the reference
            ("The answer is 2x+1.", "2", None),
            ("It is 3 x 10^5.", "10^5", None),
            (r"It is \sqrt{8}.", "8", None),
            ("It is ½.", "0.5", None),
            ("4", "a house", None),
        ],
    )
    def test_equal_is_by_value_and_what_is_not_read_is_unscored(
        self, text: str, reference: str, value: float | None
    ) -> None:
        reward = judge(text, reference)
        assert reward.value == value, reward
        assert (reward.error is None) == (value is not None)

    def test_an_empty_reference_is_none(self) -> None:
        assert judge("4", "", "4").value == 1.0
        assert judge("4", " ").value is None

    def test_an_answer_may_equal_any_reference(self) -> None:
        assert judge("$7$", "6", "7").value == 1.0

    def test_a_reason_names_the_reference_and_does_not_tell_it(self) -> None:
        error = str(judge("4", "a house").error)
        assert error.startswith("cannot read a reference")
        assert "house" not in error

    def test_a_comparison_that_takes_too_long_is_unscored_and_not_wrong(self) -> None:
        # math-verify by itself says False, and the run would go on for hours without its limit.
        reward = judge(r"$9^{9^{9^9}}$", "5", timeout_s=1)
        assert (reward.value, reward.error) == (None, "comparing takes longer than 1 s")

    def test_away_from_the_main_thread_there_is_no_signal_and_the_same_value(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        found: list[Reward] = []
        thread = threading.Thread(target=lambda: found.append(judge(r"$\frac{2}{8}$", "0.25")))
        thread.start()
        thread.join()
        assert found[0].value == 1.0
        assert not caplog.records
