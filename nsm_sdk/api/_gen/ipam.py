# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate_api.py from nsm_sdk/api/proto; do not edit.

from enum import IntEnum

from nsm_sdk.api._gen.pool import enum_values, message_class

PrefixRequest = message_class("ipam.PrefixRequest")
PrefixResponse = message_class("ipam.PrefixResponse")
Type = IntEnum("Type", enum_values("ipam.Type"), module=__name__)
