# SPDX-License-Identifier: Apache-2.0
"""The decision by itself.

Does:  total over every state and event; a state machine of random events checks the rules that must never break.
Place: nsm_sdk.heal.decide.
State: none.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nsm_sdk.heal import Control, Data, Healing, Kind, Phase, Policy, Why, decide
from nsm_sdk.heal.model import By, Said
from nsm_sdk.heal.steps import (
    Action,
    Attempt,
    Check,
    Checked,
    Closed,
    Due,
    Established,
    Event,
    Failed,
    Heard,
    Note,
    Refresh,
    Sent,
    Skipped,
)

times = st.floats(0, 10_000)
maybe_never = times | st.just(math.inf)

states = st.builds(
    Healing,
    policy=st.builds(Policy, attempts=st.integers(0, 5), patience=maybe_never),
    random=st.integers(0, 2**64 - 1),
    phase=st.sampled_from(Phase),
    control=st.sampled_from(Control),
    data=st.sampled_from(Data),
    why=st.none() | st.sampled_from(Why),
    due=maybe_never,
    probed=st.booleans(),
    endpoint=st.sampled_from(["", "nse-1", "nse-2"]),
    expires=maybe_never,
    lifetime=maybe_never,
    timeout=st.floats(0.1, 60),
    refresh_in=maybe_never,
    known=st.booleans(),
    began=times,
    attempts=st.integers(0, 100),
    plain=st.integers(0, 100),
    reselects=st.booleans(),
    spread=st.booleans(),
    anew=st.booleans(),
    gone_since=maybe_never,
    alive_at=times | st.just(-math.inf),
    not_before=times | st.just(-math.inf),
    stale=st.booleans(),
    reselected=st.booleans(),
    reselected_at=times | st.just(-math.inf),
    echoes=st.booleans(),
    wanted=st.booleans(),
    posted=st.booleans(),
    wishes=st.integers(0, 100),
    wished_at=times | st.just(-math.inf),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        Established,
        by=st.sampled_from(By),
        reselect=st.booleans(),
        endpoint=st.sampled_from(["", "nse-1", "nse-2"]),
        expires=maybe_never,
        timeout=st.floats(0.1, 60),
        refresh_in=maybe_never,
        probed=st.booleans(),
    ),
    st.builds(
        Failed,
        by=st.sampled_from(By),
        gone=st.booleans(),
        fault=st.booleans(),
        reached=st.booleans(),
        pushback=st.sampled_from([0.0, 0.2, 60.0]),
    ),
    st.builds(Skipped),
    st.builds(Sent, reselect=st.booleans()),
    st.builds(Heard, said=st.sampled_from(Said)),
    st.builds(Checked, alive=st.sampled_from([True, False, None]), asked=st.booleans(), since=st.none() | times),
    st.builds(Due),
    st.builds(Closed),
)


def check_step(before: Healing, event: Event, after: Healing, actions: list[Action], now: float) -> None:
    """What holds after any step."""
    attempts = [action for action in actions if isinstance(action, Attempt)]
    checks = [action for action in actions if isinstance(action, Check)]
    wishes = [action for action in actions if isinstance(action, Refresh)]
    assert len(attempts) + len(checks) + len(wishes) <= 1
    if attempts or wishes:
        # Whatever the matter is: a peer that asked to be left alone is.
        assert now >= after.not_before
    if attempts:
        assert after.phase is Phase.TRYING
        assert attempts[0].reselect == after.reselects == after.anew
        assert attempts[0].number == after.attempts
    if checks:
        assert after.phase is Phase.CHECKING
        assert after.probed
        assert not after.reselects
    if wishes:
        assert after.phase is Phase.WATCHING
    if after.phase is Phase.WAITING and before.phase is not Phase.WAITING:
        assert now <= after.due < math.inf
    if before.phase is Phase.CLOSED:
        assert after == before
        assert not actions
    ended = isinstance(event, Established) or (isinstance(event, Heard) and event.said is not Said.DOWN)
    if before.healing and before.reselects and after.healing and not ended:
        assert after.reselects
    if isinstance(event, Established) and event.by is By.EXTERNAL and before.phase is not Phase.CLOSED:
        assert not after.healing
        assert after.phase is Phase.WATCHING
    if isinstance(event, Heard) and event.said is Said.REFUSED:
        assert after.phase is before.phase
        assert all(isinstance(action, Note) for action in actions)


@settings(max_examples=1500)
@given(states, events, times)
def test_total_and_pure(state: Healing, event: Event, now: float) -> None:
    after, actions = decide(state, event, now)
    check_step(state, event, after, actions, now)
    assert decide(state, event, now) == (after, actions)


class World(RuleBasedStateMachine):
    """A shell without a mesh: runs what is decided, in the order in which `Heal` would."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = Healing(policy=Policy())
        self.trying: Attempt | None = None
        self.checking = False
        self.refreshing = False
        self.closed = False
        self.healing_began = 0
        self.attempt_times: list[float] = []
        self.feed(self.success(By.EXTERNAL))

    def success(self, by: By, *, reselect: bool = False, endpoint: str = "nse-1", probed: bool = True) -> Established:
        return Established(
            by=by, reselect=reselect, endpoint=endpoint, expires=self.now + 600, refresh_in=120.0, probed=probed
        )

    def feed(self, event: Event) -> None:
        before = self.state
        self.state, actions = decide(before, event, self.now)
        check_step(before, event, self.state, actions, self.now)
        for action in actions:
            match action:
                case Attempt():
                    self.trying = action
                    self.attempt_times.append(self.now)
                case Check():
                    self.checking = True
                case Refresh():
                    self.refreshing = True
                case Note():
                    if action.kind is Kind.HEALED:
                        assert action.repair is not None
                        assert action.repair >= 0
        if self.state.phase is not Phase.CHECKING:
            self.checking = False
        if self.state.phase is not Phase.TRYING:
            self.trying = None

    @rule(seconds=st.floats(0.001, 300))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while self.state.due <= until:
            self.now = max(self.now, self.state.due)
            due = self.state.due
            self.feed(Due())
            assert self.state.due > due or self.state.due == math.inf or self.state.due >= self.now
            if self.state.due == due:
                break
        self.now = until

    @rule(said=st.sampled_from(Said))
    def hears(self, said: Said) -> None:
        self.feed(Heard(said=said))

    @rule(alive=st.sampled_from([True, False, None]))
    def watch_reports(self, alive: bool | None) -> None:
        if self.state.watches_data:
            self.feed(Checked(alive=alive))

    @precondition(lambda self: self.checking)
    @rule(alive=st.sampled_from([True, False, None]))
    def check_ends(self, alive: bool | None) -> None:
        self.checking = False
        self.feed(Checked(alive=alive, asked=True))

    @precondition(lambda self: self.trying is not None)
    @rule(works=st.booleans(), gone=st.booleans(), endpoint=st.sampled_from(["nse-1", "nse-2"]))
    def attempt_ends(self, works: bool, gone: bool, endpoint: str) -> None:
        assert self.trying is not None
        attempt, self.trying = self.trying, None
        self.feed(Sent(reselect=attempt.reselect))
        if works:
            self.feed(self.success(By.OWN, reselect=attempt.reselect, endpoint=endpoint))
            assert self.state.phase is Phase.WATCHING
        else:
            self.feed(Failed(by=By.OWN, gone=gone))

    @rule(works=st.booleans())
    def refresh_ends(self, works: bool) -> None:
        self.refreshing = False
        self.feed(self.success(By.REFRESH) if works else Failed(by=By.REFRESH))

    @rule(works=st.booleans(), reselect=st.booleans(), probed=st.booleans())
    def application_asks(self, works: bool, reselect: bool, probed: bool) -> None:
        self.feed(Sent(reselect=reselect))
        if works:
            self.feed(self.success(By.EXTERNAL, reselect=reselect, probed=probed))
        else:
            self.feed(Failed(by=By.EXTERNAL))

    @invariant()
    def somebody_goes_on(self) -> None:
        """Healing never waits for something that cannot come."""
        match self.state.phase:
            case Phase.WAITING | Phase.DOUBTING:
                assert self.state.due < math.inf
            case Phase.CHECKING:
                assert self.checking
            case Phase.TRYING:
                assert self.trying is not None
            case _:
                assert not self.state.healing

    @invariant()
    def never_after_the_last_call(self) -> None:
        """While the same endpoint is tried, the next attempt comes in time to select anew."""
        state = self.state
        if state.phase is Phase.WAITING and not state.reselects and state.last_call > self.now:
            assert state.due <= state.last_call

    @invariant()
    def no_hammer(self) -> None:
        """Of one healing, no more attempts than the pauses allow; extra events may bring one forward each."""
        if self.state.healing and self.state.attempts > 12:
            assert self.now - self.state.began > self.state.policy.first_pause


TestWorld: Any = World.TestCase
TestWorld.settings = settings(max_examples=60, stateful_step_count=40)


def start(*, probed: bool = True, expires: float = 600.0) -> Healing:
    event = Established(by=By.EXTERNAL, endpoint="nse-1", expires=expires, refresh_in=120.0, probed=probed)
    state, _ = decide(Healing(policy=Policy()), event, 0.0)
    state, _ = decide(state, Heard(said=Said.UP), 0.1)
    return state


def test_pauses_double_up_to_the_longest() -> None:
    state, _ = decide(start(probed=False, expires=math.inf), Heard(said=Said.DOWN), 1.0)
    now, pauses = 1.0, []
    for _ in range(12):
        assert state.phase is Phase.TRYING
        state, _ = decide(state, Failed(by=By.OWN), now)
        pauses.append(state.due - now)
        now = state.due
        state, _ = decide(state, Due(), now)
    for number, pause in enumerate(pauses):
        longest = min(0.05 * 2**number, 5.0)
        assert longest / 2 - 1e-9 <= pause <= longest + 1e-9


def test_a_close_of_ours_is_not_taken_for_a_death() -> None:
    state, actions = decide(start(probed=False), Heard(said=Said.DOWN), 1.0)
    assert Attempt(reselect=True, number=1) in actions
    state, _ = decide(state, Established(by=By.OWN, reselect=True, endpoint="nse-2"), 1.1)
    state, _ = decide(state, Heard(said=Said.DOWN), 1.2)
    assert state.phase is Phase.DOUBTING
    echo, _ = decide(state, Heard(said=Said.UP), 1.3)
    assert echo.phase is Phase.WATCHING
    # nothing else is heard: it was meant
    meant, actions = decide(state, Due(), state.due)
    assert meant.phase is Phase.TRYING


def test_same_seed_same_story() -> None:
    first, second = (Healing(random=seed, known=True, probed=False, expires=math.inf) for seed in (1, 2))
    lost = Heard(said=Said.LOST)
    assert decide(first, lost, 0.0) == decide(first, lost, 0.0)
    assert decide(first, lost, 0.0)[0].due != decide(second, lost, 0.0)[0].due
