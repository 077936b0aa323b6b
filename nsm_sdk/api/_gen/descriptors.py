# SPDX-License-Identifier: Apache-2.0
# Made by tools/generate_api.py from nsm_sdk/api/proto; do not edit.

FILES: tuple[bytes, ...] = (
    # google/protobuf/timestamp.proto
    (
        b'\n\x1fgoogle/protobuf/timestamp.proto\x12\x0fgoogle.protobuf";\n\tTimestamp\x12'
        b'\x18\n\x07seconds\x18\x01 \x01(\x03R\x07seconds\x12\x14\n\x05nanos\x18\x02 \x01(\x05R\x05nanosB\x85\x01\n\x13com.google.p'
        b'rotobufB\x0eTimestampProtoP\x01Z2google.golang.org/protobuf/types/know'
        b'n/timestamppb\xf8\x01\x01\xa2\x02\x03GPB\xaa\x02\x1eGoogle.Protobuf.WellKnownTypesb\x06proto3'
    ),
    # connectioncontext.proto
    (
        b'\n\x17connectioncontext.proto\x12\x11connectioncontext"G\n\nIpNeighbor\x12\x0e\n\x02ip'
        b'\x18\x01 \x01(\tR\x02ip\x12)\n\x10hardware_address\x18\x02 \x01(\tR\x0fhardwareAddress"9\n\x05Route\x12\x16'
        b'\n\x06prefix\x18\x01 \x01(\tR\x06prefix\x12\x18\n\x07nextHop\x18\x02 \x01(\tR\x07nextHop"d\n\x08IpFamily\x12:\n\x06'
        b'family\x18\x01 \x01(\x0e2".connectioncontext.IpFamily.FamilyR\x06family"\x1c\n\x06Fami'
        b'ly\x12\x08\n\x04IPV4\x10\x00\x12\x08\n\x04IPV6\x10\x01"\xc5\x01\n\x12ExtraPrefixRequest\x12<\n\x0baddr_family\x18\x01 \x01'
        b'(\x0b2\x1b.connectioncontext.IpFamilyR\naddrFamily\x12\x1d\n\nprefix_len\x18\x02 \x01(\rR'
        b"\tprefixLen\x12'\n\x0frequired_number\x18\x03 \x01(\rR\x0erequiredNumber\x12)\n\x10requested"
        b'_number\x18\x04 \x01(\rR\x0frequestedNumber"\x9f\x01\n\x0bPolicyRoute\x12\x12\n\x04from\x18\x01 \x01(\tR\x04fr'
        b'om\x12\x14\n\x05proto\x18\x02 \x01(\tR\x05proto\x12\x19\n\x08dst_port\x18\x03 \x01(\tR\x07dstPort\x12\x19\n\x08src_port\x18'
        b'\x04 \x01(\tR\x07srcPort\x120\n\x06routes\x18\x05 \x03(\x0b2\x18.connectioncontext.RouteR\x06routes'
        b'"\xbc\x04\n\tIPContext\x12 \n\x0csrc_ip_addrs\x18\x01 \x03(\tR\nsrcIpAddrs\x12 \n\x0cdst_ip_addrs'
        b'\x18\x02 \x03(\tR\ndstIpAddrs\x12&\n\x0fsrc_ip_required\x18\x03 \x01(\x08R\rsrcIpRequired\x12&\n\x0fds'
        b't_ip_required\x18\x04 \x01(\x08R\rdstIpRequired\x127\n\nsrc_routes\x18\x05 \x03(\x0b2\x18.connect'
        b'ioncontext.RouteR\tsrcRoutes\x127\n\ndst_routes\x18\x06 \x03(\x0b2\x18.connectioncont'
        b'ext.RouteR\tdstRoutes\x12+\n\x11excluded_prefixes\x18\x07 \x03(\tR\x10excludedPrefixe'
        b's\x12@\n\x0cip_neighbors\x18\x08 \x03(\x0b2\x1d.connectioncontext.IpNeighborR\x0bipNeighb'
        b'ors\x12W\n\x14extra_prefix_request\x18\t \x03(\x0b2%.connectioncontext.ExtraPrefi'
        b'xRequestR\x12extraPrefixRequest\x12%\n\x0eextra_prefixes\x18\n \x03(\tR\rextraPrefi'
        b'xes\x12:\n\x08policies\x18\x0b \x03(\x0b2\x1e.connectioncontext.PolicyRouteR\x08policies"'
        b'X\n\tDNSConfig\x12$\n\x0edns_server_ips\x18\x01 \x03(\tR\x0cdnsServerIps\x12%\n\x0esearch_dom'
        b'ains\x18\x02 \x03(\tR\rsearchDomains"D\n\nDNSContext\x126\n\x07configs\x18\x01 \x03(\x0b2\x1c.conne'
        b'ctioncontext.DNSConfigR\x07configs"^\n\x0fEthernetContext\x12\x17\n\x07src_mac\x18\x01 '
        b'\x01(\tR\x06srcMac\x12\x17\n\x07dst_mac\x18\x02 \x01(\tR\x06dstMac\x12\x19\n\x08vlan_tag\x18\x03 \x01(\x05R\x07vlanTag"'
        b'\x8f\x03\n\x11ConnectionContext\x12;\n\nip_context\x18\x01 \x01(\x0b2\x1c.connectioncontext.IP'
        b'ContextR\tipContext\x12>\n\x0bdns_context\x18\x02 \x01(\x0b2\x1d.connectioncontext.DNSC'
        b'ontextR\ndnsContext\x12M\n\x10ethernet_context\x18\x03 \x01(\x0b2".connectioncontext'
        b'.EthernetContextR\x0fethernetContext\x12[\n\rextra_context\x18\x04 \x03(\x0b26.conne'
        b'ctioncontext.ConnectionContext.ExtraContextEntryR\x0cextraContext\x12\x10'
        b'\n\x03MTU\x18\x05 \x01(\rR\x03MTU\x1a?\n\x11ExtraContextEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value'
        b'\x18\x02 \x01(\tR\x05value:\x028\x01b\x06proto3'
    ),
    # connection.proto
    (
        b'\n\x10connection.proto\x12\nconnection\x1a\x1fgoogle/protobuf/timestamp.proto\x1a'
        b'\x17connectioncontext.proto"\xb7\x01\n\tMechanism\x12\x10\n\x03cls\x18\x01 \x01(\tR\x03cls\x12\x12\n\x04type'
        b'\x18\x02 \x01(\tR\x04type\x12E\n\nparameters\x18\x03 \x03(\x0b2%.connection.Mechanism.Paramete'
        b'rsEntryR\nparameters\x1a=\n\x0fParametersEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05valu'
        b'e\x18\x02 \x01(\tR\x05value:\x028\x01"\xf9\x01\n\x0bPathSegment\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x0e\n\x02id\x18\x02 \x01'
        b'(\tR\x02id\x12\x14\n\x05token\x18\x03 \x01(\tR\x05token\x124\n\x07expires\x18\x04 \x01(\x0b2\x1a.google.protobuf.'
        b'TimestampR\x07expires\x12>\n\x07metrics\x18\x05 \x03(\x0b2$.connection.PathSegment.Met'
        b'ricsEntryR\x07metrics\x1a:\n\x0cMetricsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 '
        b'\x01(\tR\x05value:\x028\x01"Z\n\x04Path\x12\x14\n\x05index\x18\x01 \x01(\rR\x05index\x12<\n\rpath_segments\x18\x02 '
        b'\x03(\x0b2\x17.connection.PathSegmentR\x0cpathSegments"\xdd\x03\n\nConnection\x12\x0e\n\x02id\x18'
        b"\x01 \x01(\tR\x02id\x12'\n\x0fnetwork_service\x18\x02 \x01(\tR\x0enetworkService\x123\n\tmechanism\x18"
        b'\x03 \x01(\x0b2\x15.connection.MechanismR\tmechanism\x12>\n\x07context\x18\x04 \x01(\x0b2$.conne'
        b'ctioncontext.ConnectionContextR\x07context\x12:\n\x06labels\x18\x05 \x03(\x0b2".connec'
        b'tion.Connection.LabelsEntryR\x06labels\x12$\n\x04path\x18\x06 \x01(\x0b2\x10.connection.P'
        b'athR\x04path\x12A\n\x1dnetwork_service_endpoint_name\x18\x07 \x01(\tR\x1anetworkService'
        b"EndpointName\x12\x18\n\x07payload\x18\x08 \x01(\tR\x07payload\x12'\n\x05state\x18\t \x01(\x0e2\x11.connecti"
        b'on.StateR\x05state\x1a9\n\x0bLabelsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR'
        b'\x05value:\x028\x01"\xee\x01\n\x0fConnectionEvent\x123\n\x04type\x18\x01 \x01(\x0e2\x1f.connection.Connec'
        b'tionEventTypeR\x04type\x12N\n\x0bconnections\x18\x02 \x03(\x0b2,.connection.Connection'
        b'Event.ConnectionsEntryR\x0bconnections\x1aV\n\x10ConnectionsEntry\x12\x10\n\x03key\x18\x01'
        b' \x01(\tR\x03key\x12,\n\x05value\x18\x02 \x01(\x0b2\x16.connection.ConnectionR\x05value:\x028\x01"\x7f\n\x14M'
        b'onitorScopeSelector\x12<\n\rpath_segments\x18\x01 \x03(\x0b2\x17.connection.PathSegm'
        b'entR\x0cpathSegments\x12)\n\x10network_services\x18\x02 \x03(\tR\x0fnetworkServices*H\n\x05'
        b'State\x12\x06\n\x02UP\x10\x00\x12\x08\n\x04DOWN\x10\x01\x12\x15\n\x11REFRESH_REQUESTED\x10\x02\x12\x16\n\x12RESELECT_REQUE'
        b'STED\x10\x03*I\n\x13ConnectionEventType\x12\x1a\n\x16INITIAL_STATE_TRANSFER\x10\x00\x12\n\n\x06UPD'
        b'ATE\x10\x01\x12\n\n\x06DELETE\x10\x022j\n\x11MonitorConnection\x12U\n\x12MonitorConnections\x12 .c'
        b'onnection.MonitorScopeSelector\x1a\x1b.connection.ConnectionEvent0\x01b\x06p'
        b'roto3'
    ),
    # ipam.proto
    (
        b'\n\nipam.proto\x12\x04ipam"r\n\rPrefixRequest\x12\x1e\n\x04type\x18\x01 \x01(\x0e2\n.ipam.TypeR\x04t'
        b'ype\x12\x16\n\x06prefix\x18\x02 \x01(\tR\x06prefix\x12)\n\x10exclude_prefixes\x18\x03 \x03(\tR\x0fexcludePr'
        b'efixes"S\n\x0ePrefixResponse\x12\x16\n\x06prefix\x18\x02 \x01(\tR\x06prefix\x12)\n\x10exclude_pref'
        b'ixes\x18\x03 \x03(\tR\x0fexcludePrefixes*/\n\x04Type\x12\r\n\tUNDEFINED\x10\x00\x12\x0c\n\x08ALLOCATE\x10\x01'
        b'\x12\n\n\x06DELETE\x10\x022G\n\x04IPAM\x12?\n\x0eManagePrefixes\x12\x13.ipam.PrefixRequest\x1a\x14.ip'
        b'am.PrefixResponse(\x010\x01b\x06proto3'
    ),
    # google/protobuf/empty.proto
    (
        b'\n\x1bgoogle/protobuf/empty.proto\x12\x0fgoogle.protobuf"\x07\n\x05EmptyB}\n\x13com.g'
        b'oogle.protobufB\nEmptyProtoP\x01Z.google.golang.org/protobuf/types/k'
        b'nown/emptypb\xf8\x01\x01\xa2\x02\x03GPB\xaa\x02\x1eGoogle.Protobuf.WellKnownTypesb\x06proto3'
    ),
    # networkservice.proto
    (
        b'\n\x14networkservice.proto\x12\x0enetworkservice\x1a\x1bgoogle/protobuf/empty.pr'
        b'oto\x1a\x10connection.proto"\x9b\x01\n\x15NetworkServiceRequest\x126\n\nconnection\x18\x01 '
        b'\x01(\x0b2\x16.connection.ConnectionR\nconnection\x12J\n\x15mechanism_preferences'
        b'\x18\x02 \x03(\x0b2\x15.connection.MechanismR\x14mechanismPreferences2\x93\x01\n\x0eNetworkS'
        b'ervice\x12H\n\x07Request\x12%.networkservice.NetworkServiceRequest\x1a\x16.conne'
        b'ction.Connection\x127\n\x05Close\x12\x16.connection.Connection\x1a\x16.google.proto'
        b'buf.Emptyb\x06proto3'
    ),
    # registry.proto
    (
        b'\n\x0eregistry.proto\x12\x08registry\x1a\x1bgoogle/protobuf/empty.proto\x1a\x1fgoogle/'
        b'protobuf/timestamp.proto"\x84\x01\n\x0eNetworkService\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12'
        b'\x18\n\x07payload\x18\x02 \x01(\tR\x07payload\x12)\n\x07matches\x18\x03 \x03(\x0b2\x0f.registry.MatchR\x07mat'
        b'ches\x12\x19\n\x08path_ids\x18\x04 \x03(\tR\x07pathIds"\x99\x02\n\x05Match\x12L\n\x0fsource_selector\x18\x01 \x03'
        b'(\x0b2#.registry.Match.SourceSelectorEntryR\x0esourceSelector\x12-\n\x06route'
        b's\x18\x02 \x03(\x0b2\x15.registry.DestinationR\x06routes\x12 \n\x0bfallthrough\x18\x03 \x01(\x08R\x0bfal'
        b'lthrough\x12.\n\x08metadata\x18\x04 \x01(\x0b2\x12.registry.MetadataR\x08metadata\x1aA\n\x13Sour'
        b'ceSelectorEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"}\n\x08M'
        b'etadata\x126\n\x06labels\x18\x01 \x03(\x0b2\x1e.registry.Metadata.LabelsEntryR\x06labels\x1a'
        b'9\n\x0bLabelsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"\xd0\x01\n\x0bD'
        b'estination\x12a\n\x14destination_selector\x18\x01 \x03(\x0b2..registry.Destination.'
        b'DestinationSelectorEntryR\x13destinationSelector\x12\x16\n\x06weight\x18\x02 \x01(\rR\x06w'
        b'eight\x1aF\n\x18DestinationSelectorEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01'
        b'(\tR\x05value:\x028\x01"\x95\x01\n\x14NetworkServiceLabels\x12B\n\x06labels\x18\x01 \x03(\x0b2*.registr'
        b'y.NetworkServiceLabels.LabelsEntryR\x06labels\x1a9\n\x0bLabelsEntry\x12\x10\n\x03key'
        b'\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"\x85\x04\n\x16NetworkServiceEndpoint'
        b'\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x122\n\x15network_service_names\x18\x02 \x03(\tR\x13networkServ'
        b'iceNames\x12p\n\x16network_service_labels\x18\x03 \x03(\x0b2:.registry.NetworkServi'
        b'ceEndpoint.NetworkServiceLabelsEntryR\x14networkServiceLabels\x12\x10\n\x03ur'
        b'l\x18\x04 \x01(\tR\x03url\x12C\n\x0fexpiration_time\x18\x05 \x01(\x0b2\x1a.google.protobuf.Timestam'
        b'pR\x0eexpirationTime\x12V\n\x19initial_registration_time\x18\x06 \x01(\x0b2\x1a.google.pr'
        b'otobuf.TimestampR\x17initialRegistrationTime\x12\x19\n\x08path_ids\x18\x07 \x03(\tR\x07pat'
        b'hIds\x1ag\n\x19NetworkServiceLabelsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x124\n\x05value\x18\x02 \x01'
        b'(\x0b2\x1e.registry.NetworkServiceLabelsR\x05value:\x028\x01"n\n\x13NetworkServiceQ'
        b'uery\x12A\n\x0fnetwork_service\x18\x01 \x01(\x0b2\x18.registry.NetworkServiceR\x0enetwork'
        b'Service\x12\x14\n\x05watch\x18\x02 \x01(\x08R\x05watch"\x8f\x01\n\x1bNetworkServiceEndpointQuery\x12Z\n'
        b'\x18network_service_endpoint\x18\x01 \x01(\x0b2 .registry.NetworkServiceEndpoin'
        b'tR\x16networkServiceEndpoint\x12\x14\n\x05watch\x18\x02 \x01(\x08R\x05watch"u\n\x16NetworkServic'
        b'eResponse\x12A\n\x0fnetwork_service\x18\x01 \x01(\x0b2\x18.registry.NetworkServiceR\x0ene'
        b'tworkService\x12\x18\n\x07deleted\x18\x02 \x01(\x08R\x07deleted"\x96\x01\n\x1eNetworkServiceEndpoin'
        b'tResponse\x12Z\n\x18network_service_endpoint\x18\x01 \x01(\x0b2 .registry.NetworkSe'
        b'rviceEndpointR\x16networkServiceEndpoint\x12\x18\n\x07deleted\x18\x02 \x01(\x08R\x07deleted2'
        b'\x93\x02\n\x1eNetworkServiceEndpointRegistry\x12N\n\x08Register\x12 .registry.Networ'
        b'kServiceEndpoint\x1a .registry.NetworkServiceEndpoint\x12Y\n\x04Find\x12%.reg'
        b'istry.NetworkServiceEndpointQuery\x1a(.registry.NetworkServiceEndpo'
        b'intResponse0\x01\x12F\n\nUnregister\x12 .registry.NetworkServiceEndpoint\x1a\x16.'
        b'google.protobuf.Empty2\xe3\x01\n\x16NetworkServiceRegistry\x12>\n\x08Register\x12\x18.r'
        b'egistry.NetworkService\x1a\x18.registry.NetworkService\x12I\n\x04Find\x12\x1d.regis'
        b'try.NetworkServiceQuery\x1a .registry.NetworkServiceResponse0\x01\x12>\n\nU'
        b'nregister\x12\x18.registry.NetworkService\x1a\x16.google.protobuf.Emptyb\x06pro'
        b'to3'
    ),
)
