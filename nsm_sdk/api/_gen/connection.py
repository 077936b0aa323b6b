# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate_api.py from nsm_sdk/api/proto; do not edit.

from enum import IntEnum

from nsm_sdk.api._gen.pool import enum_values, message_class

Mechanism = message_class("connection.Mechanism")
PathSegment = message_class("connection.PathSegment")
Path = message_class("connection.Path")
Connection = message_class("connection.Connection")
ConnectionEvent = message_class("connection.ConnectionEvent")
MonitorScopeSelector = message_class("connection.MonitorScopeSelector")
State = IntEnum("State", enum_values("connection.State"), module=__name__)
ConnectionEventType = IntEnum("ConnectionEventType", enum_values("connection.ConnectionEventType"), module=__name__)
