# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate_api.py from nsm_sdk/api/proto; do not edit.

from nsm_sdk.api._gen.pool import message_class

NetworkService = message_class("registry.NetworkService")
Match = message_class("registry.Match")
Metadata = message_class("registry.Metadata")
Destination = message_class("registry.Destination")
NetworkServiceLabels = message_class("registry.NetworkServiceLabels")
NetworkServiceEndpoint = message_class("registry.NetworkServiceEndpoint")
NetworkServiceQuery = message_class("registry.NetworkServiceQuery")
NetworkServiceEndpointQuery = message_class("registry.NetworkServiceEndpointQuery")
NetworkServiceResponse = message_class("registry.NetworkServiceResponse")
NetworkServiceEndpointResponse = message_class("registry.NetworkServiceEndpointResponse")
