# SPDX-License-Identifier: Apache-2.0
"""Every table row that this SDK answers otherwise than the Go programs, on purpose, with the reason.

Does:  is the one list that tests of recordings consult; a row that is listed must really differ.
Place: tests/wire and the table tests of each room.
State: none.
"""

from __future__ import annotations

DEVIATIONS: dict[tuple[str, str, str], str] = {
    (
        "pathing",
        "updatepath_server_request",
        "updatepath_server_request-29",
    ): "upstream crashes on an answer without a path; passed on as it came",
    (
        "pathing",
        "updatepath_client_close",
        "updatepath_client_close-1",
    ): "a close without a connection is an empty message here; it matches nothing further down",
    (
        "pathing",
        "updatepath_server_close",
        "updatepath_server_close-1",
    ): "a close without a connection is an empty message here; it matches nothing further down",
    (
        "names",
        "nsurl",
        "nsurl-6",
    ): "an empty interface name says nothing; the parameter is left out instead of sent empty",
    ("names", "nsurl", "nsurl-15"): "a URL without a mechanism and '://' cannot be served; refused where it is read",
    ("names", "nsurl", "nsurl-16"): "a URL without a mechanism and '://' cannot be served; refused where it is read",
    ("names", "nsurl", "nsurl-17"): "a URL without a mechanism and '://' cannot be served; refused where it is read",
    ("names", "nsurl", "nsurl-18"): "a URL without a service cannot be served; refused where it is read",
    ("names", "nsurl", "nsurl-19"): "a URL without a service cannot be served; refused where it is read",
    ("names", "nsurl", "nsurl-24"): "Linux takes no blank in an interface name; refused where it is read",
    ("names", "nsurl", "nsurl-33"): "a broken escape makes upstream drop the label without a word; refused",
    ("names", "nsurl", "nsurl-36"): "';' between labels makes upstream drop them without a word; refused",
    (
        "names",
        "awareness_groups",
        "awareness_groups-3",
    ): "an item that is no service URL can never match; refused where it is read",
    (
        "names",
        "awareness_groups",
        "awareness_groups-4",
    ): "an item that is no service URL can never match; refused where it is read",
    (
        "names",
        "nanoid",
        "nanoid-5",
    ): "upstream never ends with an alphabet of two letters; ours is drawn like any other",
    ("names", "url_to_target", "url_to_target-5"): "the same socket, written in the one form that we always use",
    (
        "names",
        "url_to_target",
        "url_to_target-7",
    ): "gRPC refuses what upstream answers; ours names the same relative path so that it can be dialled",
    ("names", "url_to_target", "url_to_target-10"): "no address that can be dialled; refused with a hint",
    ("names", "url_to_target", "url_to_target-11"): "no address that can be dialled; refused with a hint",
    ("names", "url_to_target", "url_to_target-13"): "no address that can be dialled; refused with a hint",
    (
        "names",
        "target_to_url",
        "target_to_url-7",
    ): "upstream escapes a URL into the host of another; ours reads it as the address it is",
    (
        "names",
        "target_to_url",
        "target_to_url-10",
    ): "upstream escapes a URL into the host of another; ours reads it as the address it is",
    ("names", "target_to_url", "target_to_url-8"): "an address without a port cannot be dialled; refused with a hint",
    ("names", "target_to_url", "target_to_url-9"): "an address without a port cannot be dialled; refused with a hint",
    (
        "mechanisms",
        "write",
        "write-9",
    ): "upstream writes an absent address as the text <nil>; ours leaves the parameter out",
    (
        "mechanisms",
        "kernel_client",
        "kernel_client-5",
    ): "a name longer than Linux takes fails later and elsewhere; refused at once",
    ("mechanisms", "port_range", "port_range-4"): "a range that ends before it starts matches no port; refused",
    ("ipam", "ippool", "ippool-7"): (
        "their list names the whole /64 once more when a range ends where a /64 ends (64 bits overflow); pulls agree"
    ),
    ("ipam", "ippool", "ippool-28"): (
        "their list names ::/0 once more at the end of all numbers (64 bits overflow); pulls agree"
    ),
    ("ipam", "prefixpool_exclude", "prefixpool_exclude-2"): (
        "excluding all there is leaves their pool as it was; we refuse, as they do in other such cases"
    ),
    ("ipam", "prefixpool_exclude", "prefixpool_exclude-5"): (
        "a prefix that covers two of the pool's removes only one there; we remove both and refuse: nothing is left"
    ),
    ("ipam", "prefixpool_exclude", "prefixpool_exclude-6"): ("theirs crashes on rubbish; we answer InvalidRequest"),
    ("ipam", "ipam_element", "ipam_element-9"): (
        "no prefix is refused when the element is made, not at the first request"
    ),
    ("ipam", "ipam_element", "ipam_element-22"): (
        "no prefix is refused when the element is made, not at the first request"
    ),
    ("ipam", "ipam_element", "ipam_element-10"): (
        "an address of ours that another connection has is taken out; they let two clients have it"
    ),
    ("vl3-ipam-wire", "calls", "3"): ("a pool without room is RESOURCE_EXHAUSTED, not UNKNOWN; the text is the same"),
    ("vl3-ipam-wire", "calls", "4"): (
        "a request without a type is INVALID_ARGUMENT, not UNKNOWN; the text is the same"
    ),
    ("vl3-ipam-wire", "calls", "5"): ("a client that ends its sending side has done nothing wrong: OK, not UNKNOWN"),
    ("tokens", "generator", "generator-6"): ("the peer's certificate ends the `exp` claim, too, not only the expiry"),
    ("tokens", "generator", "generator-7"): ("the peer's certificate ends the `exp` claim, too, not only the expiry"),
    ("pathing", "updatetoken_server", "updatetoken_server-20"): ("a close goes on whatever its path is like"),
    ("pathing", "updatetoken_server", "updatetoken_server-22"): ("a close goes on whatever its path is like"),
    ("pathing", "updatetoken_server", "updatetoken_server-24"): ("a close goes on without a path"),
    ("pathing", "updatetoken_server", "updatetoken_server-28"): ("a close goes on without a token of our own"),
    ("vl3-ipam-wire", "events", "55"): (
        "a stream that failed has given its prefix back, so the lowest is free again; theirs is lost for good"
    ),
    ("pathing", "refresh_client", "refresh_client-5"): ("never sooner than 50 ms: a storm helps nobody"),
    ("pathing", "refresh_client", "refresh_client-6"): ("never sooner than 50 ms: a storm helps nobody"),
    ("pathing", "refresh_client", "refresh_client-8"): ("never sooner than 50 ms, and slower while tokens stay past"),
    ("pathing", "refresh_client", "refresh_client-9"): ("nothing in the path expires, so nothing is refreshed"),
    ("pathing", "refresh_client", "refresh_client-15"): ("a segment without expiry is left out of the reckoning"),
    ("pathing", "refresh_client", "refresh_client-16"): ("never sooner than 50 ms, and slower while tokens stay past"),
    ("pathing", "timeout_server", "timeout_server-5"): (
        "a deadline that is longer than the token lives leaves a tenth of the life for the close; nothing ends at once"
    ),
    ("pathing", "timeout_server", "timeout_server-8"): (
        "an expired caller is refused; theirs builds, and closes at once"
    ),
    ("pathing", "timeout_server", "timeout_server-9"): (
        "an expired caller is refused; theirs builds, and closes at once"
    ),
    ("pathing", "timeout_server", "timeout_server-10"): (
        "an expired caller is refused; theirs builds, and closes at once"
    ),
    ("elements", "clienturl_server", "clienturl_server-3"): (
        "an element without a URL leaves the one that was chosen, on both sides; theirs forgets it on the server's"
    ),
    ("elements", "swapip_client", "swapip_client-2"): ("an address that is not in the map stays; theirs becomes empty"),
    ("elements", "swapip_client", "swapip_client-10"): (
        "an address that is not in the map stays; theirs becomes empty"
    ),
    ("elements", "swapip_client", "swapip_client-11"): (
        "an address that is not in the map stays; theirs becomes empty"
    ),
    ("elements", "swapip_client", "swapip_client-14"): (
        "an address that is not in the map stays; theirs becomes empty"
    ),
    ("elements", "swapip_client", "swapip_client-18"): (
        "an address that is not in the map stays; theirs becomes empty"
    ),
    ("elements", "swapip_server", "swapip_server-4"): ("an address that is not in the map stays; theirs becomes empty"),
    ("elements", "swapip_server", "swapip_server-12"): (
        "an address that is not in the map stays; theirs becomes empty"
    ),
    ("elements", "swapip_server", "swapip_server-13"): (
        "an address that is not in the map stays; theirs becomes empty"
    ),
    ("elements", "swapip_server", "swapip_server-15"): (
        "an address that is not in the map stays; theirs becomes empty"
    ),
    ("matching", "network_service", "network_service-15"): (
        "a list that is there but empty is a thing of Go's memory; in a message it is no list, which means any"
    ),
    ("pathing", "registry_expire_server", "registry_expire_server-1"): (
        "where nothing says how long an endpoint lives it stays; theirs is removed at once"
    ),
    ("pathing", "registry_expire_server", "registry_expire_server-14"): (
        "a deadline longer than the life takes a tenth of it away; theirs is removed at once"
    ),
    ("pathing", "registry_expire_server", "registry_expire_server-16"): (
        "a deadline longer than the life takes a tenth of it away; theirs is removed at once"
    ),
    ("pathing", "registry_refresh_client", "registry_refresh_client-5"): (
        "an expiry that is now is refreshed after a short pause, so that it cannot storm"
    ),
    ("pathing", "registry_refresh_client", "registry_refresh_client-6"): (
        "an expiry that is past is refreshed after a short pause, so that it cannot storm"
    ),
    ("registry-nse", "calls", "1"): ("nothing is removed at once, so the watcher sees fewer deletions and returns"),
    ("registry-nse", "calls", "17"): ("nothing is removed at once, so the first registration lives on"),
    ("registry-nse", "calls", "18"): ("nothing is removed at once: an expiry in the past counts as none asked for"),
    ("registry-nse", "calls", "23"): ("nothing is removed at once: an expiry in the past counts as none asked for"),
    ("registry-ns", "calls", "1"): ("a service without a name is refused, so nobody sees it"),
    ("registry-ns", "calls", "5"): ("a service without a name is refused"),
    ("registry-ns", "calls", "11"): ("a service without a name is refused, so nobody finds it"),
    ("registry-ns", "calls", "16"): ("a service without a name is refused, so nobody finds it"),
    ("registry-via-nsmgr", "calls", "21"): ("a refresh that comes in time is in time: nothing is removed before it"),
    ("registry-via-nsmgr", "calls", "26"): ("a refresh that comes in time is in time: nothing is removed before it"),
    ("monitor", "answers", "67"): "a close succeeds with the endpoint gone; theirs fails with UNAVAILABLE",
    ("monitor", "answers", "69"): "a close succeeds with the endpoint gone; theirs fails with UNAVAILABLE",
    ("registry-via-nsmgr", "calls", "3"): (
        "a watch that breaks with the registry says so; theirs ends as if all were told"
    ),
    ("errors", "answers", "77"): ("nobody fits: UNAVAILABLE, with the reason for each candidate; theirs is UNKNOWN"),
    ("errors", "answers", "82"): ("nobody fits: UNAVAILABLE, with the reason for each candidate; theirs is UNKNOWN"),
    ("errors", "answers", "87"): ("nobody fits: UNAVAILABLE, with the reason for each candidate; theirs is UNKNOWN"),
    ("errors", "answers", "90"): ("nobody fits: UNAVAILABLE, with the reason for each candidate; theirs is UNKNOWN"),
    ("errors", "answers", "105"): ("the status of the hop that failed reaches the client; theirs is UNKNOWN"),
    ("errors", "answers", "114"): ("the status of the hop that failed reaches the client; theirs is UNKNOWN"),
    ("errors", "answers", "133"): ("the status of the hop that failed reaches the client; theirs is UNKNOWN"),
    ("errors", "answers", "150"): ("nobody fits: UNAVAILABLE, with the reason for each candidate; theirs is UNKNOWN"),
    ("errors", "answers", "163"): ("a forwarder refuses what it cannot join; theirs leaves it to the endpoint"),
    ("errors", "requests", "168"): ("a forwarder refuses what it cannot join; theirs leaves it to the endpoint"),
    ("errors", "answers", "181"): ("a forwarder refuses what it cannot join; theirs leaves it to the endpoint"),
    ("errors", "requests", "186"): ("a forwarder refuses what it cannot join; theirs leaves it to the endpoint"),
    ("errors", "answers", "187"): ("a request without a service is INVALID_ARGUMENT; theirs is UNKNOWN"),
    ("errors", "answers", "202"): ("a request without a service is INVALID_ARGUMENT; theirs is UNKNOWN"),
    ("errors", "answers", "213"): (
        "an expired caller is refused by the first hop; theirs asks all hops and then fails"
    ),
    ("errors", "answers", "216"): ("the status of the hop that failed reaches the client; theirs is UNKNOWN"),
    ("errors", "requests", "216"): ("an expired caller is refused by the first hop that it calls"),
    ("errors", "answers", "225"): ("the status of the hop that failed reaches the client; theirs is UNKNOWN"),
    ("errors", "requests", "230"): ("their forwarder was made to send an expired token; ours never does"),
    ("errors", "answers", "257"): ("what is malformed is INVALID_ARGUMENT; theirs is UNKNOWN"),
    ("errors", "requests", "260"): ("a request without a path is refused before anybody else is asked"),
    ("errors", "answers", "270"): ("what is malformed is INVALID_ARGUMENT; theirs is UNKNOWN"),
    ("errors", "answers", "271"): ("what is malformed is INVALID_ARGUMENT; theirs is UNKNOWN"),
    ("errors", "answers", "272"): ("what is malformed is INVALID_ARGUMENT; theirs is UNKNOWN"),
    ("errors", "answers", "273"): ("what is malformed is INVALID_ARGUMENT; theirs is UNKNOWN"),
    ("errors", "answers", "274"): ("a caller without a token is UNAUTHENTICATED; theirs asks all hops and then fails"),
    ("errors", "requests", "277"): ("a request without a token is refused before anybody else is asked"),
    ("errors", "answers", "300"): ("what is malformed is INVALID_ARGUMENT; theirs is UNKNOWN"),
    ("heal-nse", "answers", "25"): "a close succeeds with the next hop gone; theirs fails with UNAVAILABLE",
    ("heal-nse", "answers", "27"): "a close succeeds with the next hop gone; theirs fails with UNAVAILABLE",
    ("heal-forwarder", "answers", "25"): "a close succeeds with the next hop gone; theirs fails with UNAVAILABLE",
    ("heal-nse", "answers", "33"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("heal-nse", "answers", "41"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("heal-nse", "answers", "49"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("heal-nse", "answers", "57"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("heal-nse", "answers", "65"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("heal-forwarder", "answers", "27"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("heal-forwarder", "answers", "30"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("heal-forwarder", "answers", "33"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("heal-forwarder", "answers", "36"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("heal-forwarder", "answers", "39"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("heal-forwarder", "answers", "42"): "a next hop that is gone is UNAVAILABLE; theirs is UNKNOWN",
    ("interdomain", "answers", "115"): "nobody fits: UNAVAILABLE, with the reason; theirs is UNKNOWN",
    ("interdomain", "answers", "119"): "nobody fits: UNAVAILABLE, with the reason; theirs is UNKNOWN",
    (
        "heal-nse",
        "reselects",
        "payload",
    ): "what the former endpoint gave is not asked for again; theirs keeps its payload",
    ("heal-forwarder", "reselects", "payload"): (
        "what the former endpoint gave is not asked for again; theirs keeps its payload"
    ),
    ("heal-datapath", "reselects", "payload"): (
        "what the former endpoint gave is not asked for again; theirs keeps its payload"
    ),
    ("heal-datapath", "answers", "44"): (
        "a connection that stands is UP for those who watch; theirs shows the state that the request came with"
    ),
    ("heal-nse", "answers", "83"): (
        "a connection that stands is UP for those who watch; theirs shows the state that the request came with"
    ),
    ("heal-forwarder", "answers", "59"): (
        "a connection that stands is UP for those who watch; theirs shows the state that the request came with"
    ),
}
"""(file, section, case) -> why we answer otherwise."""
