from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc_broker.model.errors import Forbidden
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import CATEGORIES, Principal, Role, Scope, scope_for
from mlc_broker.query.scopes import asker_for, filter_allows, scope_allows
from mlc_broker.store.columns import ROW, Dictionary, RowWriter, epoch_ms
from mlc_broker.store.lines import decode_line, encode_line
from mlc_broker.store.select import Selection, select
from tests.fakes_store import LESSON
from tests.oracle_scopes import School, may_see

SCHOOL = School()
PEOPLE = ["ada", "ben", "tess", "tom", "tina", "thea", "sam", "root"]
CLASSES = ["c1", "c2", "c3", "c4"]
KIND = {"play": CATEGORIES[1], "click": CATEGORIES[0], "load": CATEGORIES[2], "seat": CATEGORIES[3]}
NOW_MS = int(LESSON.timestamp() * 1000)

some = st.none() | st.sampled_from(PEOPLE)
events = st.builds(
    lambda kind, org, user, role, classes, context, seconds, game: Event(
        event_id="evt_00000001",
        event_type=kind,
        timestamp=LESSON - timedelta(seconds=seconds),
        organization_id=org,
        user_id=user,
        facts=Facts(received_at=LESSON, role=role, class_ids=tuple(sorted(classes))),
    ).but(
        context={k: v for k, v in context.items() if v is not None},
        properties={} if game is None else {"game_id": game},
    ),
    st.sampled_from([*KIND, "unheard_of"]),
    st.sampled_from(["north", "south", None]),
    some,
    st.sampled_from([*Role, None]),
    st.sets(st.sampled_from(CLASSES)),
    st.fixed_dictionaries(
        {
            "teacher_id": some,
            "class_id": st.none() | st.sampled_from(CLASSES),
            "assignment_id": st.sampled_from(["a1", None]),
            "sequence_id": st.sampled_from(["q1", None]),
        }
    ),
    st.integers(0, 100),
    st.sampled_from(["g1", "g2", None]),
)
principals = st.builds(
    lambda who, org, role: Principal(kind="user", id=who, organization_id=org, role=role),
    st.sampled_from(PEOPLE),
    st.sampled_from(["north", "south"]),
    st.sampled_from(list(Role)),
)
axes = st.none() | st.frozensets(st.sampled_from([*PEOPLE, "nobody"]), max_size=3)
filters = st.builds(
    Filter,
    begin=st.none() | st.integers(0, 100).map(lambda n: LESSON - timedelta(seconds=n)),
    end=st.none() | st.integers(0, 100).map(lambda n: LESSON - timedelta(seconds=n)),
    event_type=st.none() | st.frozensets(st.sampled_from([*KIND, "unheard_of"])),
    category=st.none() | st.frozensets(st.sampled_from(CATEGORIES)),
    user_id=axes,
    class_id=st.none() | st.frozensets(st.sampled_from(CLASSES)),
    teacher_id=axes,
    assignment_id=st.none() | st.just(frozenset({"a1"})),
    sequence_id=st.none() | st.just(frozenset({"q1", "q2"})),
    game_id=st.none() | st.just(frozenset({"g1"})),
    organization_id=st.none() | st.frozensets(st.sampled_from(["north", "south"])),
)


def on_columns(event: Event, scope: Scope, wanted: Filter | None = None) -> bool:
    """Whether the packed columns of an event are selected."""
    dictionary = Dictionary()
    writer = RowWriter(dictionary, KIND.get)
    row = writer.row(event, epoch_ms(event), writer.facts(event.facts))
    selection = Selection(scope=scope, filter=wanted or Filter(), now_ms=NOW_MS)
    return bool(select(np.frombuffer(row, ROW), dictionary, selection)[0])


def as_read(event: Event) -> dict[str, Any]:
    return decode_line(encode_line(event, "2026-11-20T09:30:00.000Z"))


def told(event: Event, principal: Principal, named: str | None = None) -> bool:
    return may_see(
        SCHOOL,
        principal.role,
        principal.id,
        principal.organization_id or "",
        as_read(event),
        KIND.get(event.event_type),
        named,
    )


@settings(max_examples=400)
@given(event=events, principal=principals, named=st.sampled_from(["north", "south", None]))
def test_the_scope_is_the_protocols_table_on_columns_and_on_live_events(
    event: Event, principal: Principal, named: str | None
) -> None:
    scope = scope_for(principal, SCHOOL, organization_id=named)
    expected = told(event, principal, named)
    assert on_columns(event, scope) == expected
    assert scope_allows(scope, as_read(event), KIND.get(event.event_type)) == expected


@settings(max_examples=300)
@given(event=events, principal=principals, wanted=filters)
def test_a_filter_means_the_same_on_columns_and_on_live_events(
    event: Event, principal: Principal, wanted: Filter
) -> None:
    scope = scope_for(principal, SCHOOL)
    category = KIND.get(event.event_type)
    live = scope_allows(scope, as_read(event), category) and filter_allows(
        wanted, as_read(event), category
    )
    assert on_columns(event, scope, wanted) == live


def mutants(scope: Scope) -> list[Scope]:
    """Return the scope with one clause dropped: the organization, or one axis of one grant."""
    found = []
    if scope.organization_id is not None:
        found.append(msgspec.structs.replace(scope, organization_id=None))
    for at, grant in enumerate(scope.grants):
        for axis in grant.__struct_fields__:
            if getattr(grant, axis) is not None:
                without = msgspec.structs.replace(grant, **{axis: None})
                grants = (*scope.grants[:at], without, *scope.grants[at + 1 :])
                found.append(msgspec.structs.replace(scope, grants=grants))
        if len(scope.grants) > 1:
            grants = scope.grants[:at] + scope.grants[at + 1 :]
            found.append(msgspec.structs.replace(scope, grants=grants))
    return found


@pytest.mark.parametrize(
    ("who", "role"),
    [
        ("ada", Role.STUDENT),
        ("tess", Role.TEACHER),
        ("thea", Role.TEACHER_ADMIN),
        ("sam", Role.SUBSCRIBER_ADMIN),
    ],
)
def test_a_scope_with_any_one_clause_dropped_is_caught(who: str, role: Role) -> None:
    principal = Principal(kind="user", id=who, organization_id="north", role=role)
    scope = scope_for(principal, SCHOOL)
    world = list(_everything())
    expected = [told(event, principal) for event in world]
    assert [on_columns(event, scope) for event in world] == expected
    assert mutants(scope)
    for mutant in mutants(scope):
        assert [on_columns(event, mutant) for event in world] != expected, mutant
        live = [scope_allows(mutant, as_read(e), KIND.get(e.event_type)) for e in world]
        assert live != expected, mutant


def _everything() -> list[Event]:
    return [
        Event(
            event_id="evt_00000001",
            event_type=kind,
            timestamp=LESSON,
            organization_id=org,
            user_id=user,
            facts=Facts(received_at=LESSON, role=role, class_ids=classes),
        ).but(context={} if teacher is None else {"teacher_id": teacher})
        for kind in KIND
        for org in ("north", "south")
        for user in ("ada", "tess", "tom", "thea")
        for role in (Role.STUDENT, Role.TEACHER)
        for classes in ((), ("c1",), ("c2",))
        for teacher in (None, "tess", "tom")
    ]


@pytest.mark.parametrize("kind", ["ingest", "anonymous"])
def test_a_key_reads_nothing(kind: Any) -> None:
    with pytest.raises(Forbidden):
        asker_for(Principal(kind=kind, id="key", organization_id="north"), SCHOOL, Filter())


def test_across_organizations_a_system_admin_sees_pseudonyms_unless_exactly_one_is_named() -> None:
    root = Principal(kind="user", id="root", organization_id="north", role=Role.SYSTEM_ADMIN)

    def asked(*organizations: str) -> Scope:
        named = frozenset(organizations) or None
        return asker_for(root, SCHOOL, Filter(organization_id=named)).scope

    assert asked().pseudonymous
    assert asked("north", "south").pseudonymous
    assert not asked("south").pseudonymous
    assert asked("south").organization_id == "south"


def test_naming_an_organization_widens_nobody_elses_scope() -> None:
    for role in (Role.STUDENT, Role.TEACHER, Role.TEACHER_ADMIN, Role.SUBSCRIBER_ADMIN):
        me = Principal(kind="user", id="tess", organization_id="north", role=role)
        wanted = Filter(organization_id=frozenset({"south"}))
        assert asker_for(me, SCHOOL, wanted).scope.organization_id == "north"
