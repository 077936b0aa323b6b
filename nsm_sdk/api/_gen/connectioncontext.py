# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate_api.py from nsm_sdk/api/proto; do not edit.

from nsm_sdk.api._gen.pool import message_class

IpNeighbor = message_class("connectioncontext.IpNeighbor")
Route = message_class("connectioncontext.Route")
IpFamily = message_class("connectioncontext.IpFamily")
ExtraPrefixRequest = message_class("connectioncontext.ExtraPrefixRequest")
PolicyRoute = message_class("connectioncontext.PolicyRoute")
IPContext = message_class("connectioncontext.IPContext")
DNSConfig = message_class("connectioncontext.DNSConfig")
DNSContext = message_class("connectioncontext.DNSContext")
EthernetContext = message_class("connectioncontext.EthernetContext")
ConnectionContext = message_class("connectioncontext.ConnectionContext")
