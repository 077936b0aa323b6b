# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate_api.py from nsm_sdk/api/proto; do not edit.

from nsm_sdk.api._gen.pool import message_class

Timestamp = message_class("google.protobuf.Timestamp")
Empty = message_class("google.protobuf.Empty")
