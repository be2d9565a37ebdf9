"""The order in which the frames of a video's packets are shown."""

from __future__ import annotations

from av import Packet
from av.bitstream import BitStreamFilterContext

PICTURE = b'\0\0\1\xb6'  # MPEG-4's start code of a picture; the next two bits are its kind
INTRA, BIDIRECTIONAL = 0, 2
SMALLEST = 16  # bytes; smaller pictures of MPEG-4 may be placeholders without content


def order_by_time(packets: list[Packet], reorders: bool) -> list[int] | None:
    """Sort the places of the packets by the times at which their frames are shown.

    Args:
        packets: in the order of the file; those that an edit list hides are left out.
        reorders: whether the video has B-frames, so that the orders differ.

    Returns:
        None if the times do not tell: AVI numbers the packets as they are stored, B-frames or not.
    """
    places = [place for place, packet in enumerate(packets) if not packet.is_discard]
    if not distinct([packets[place] for place in places]):
        return None
    order = sorted(places, key=lambda place: packets[place].pts)
    return None if reorders and order == places else order


def distinct(packets: list[Packet]) -> bool:
    """Check that each frame has a time of its own."""
    times = [packet.pts for packet in packets]
    return None not in times and len(set(times)) == len(times)


def unpacked(packets: list[Packet]) -> list[Packet]:
    """Split packets of MPEG-4 video in which DivX stored two pictures; uses up the given ones."""
    split = BitStreamFilterContext('mpeg4_unpack_bframes', 'mpeg4')
    return [one for packet in (*packets, None) for one in split.filter(packet) if one.size]


def order_by_kind(packets: list[Packet]) -> list[int] | None:
    """Sort the packets of MPEG-4 video by their pictures' kinds: a B-frame is shown before the frame it follows.

    Sets the packets' times in this order.

    Returns:
        fewer places than packets if some hold no picture, None if a packet is not as it should be.
    """
    if not distinct(packets):
        return None
    order, held = [], []
    for place, packet in enumerate(packets):
        data = bytes(packet)
        at = data.find(PICTURE)
        if at < 0:
            continue
        if len(data) < at + SMALLEST or data.find(PICTURE, at + 1) >= 0:
            return None
        kind = data[at + len(PICTURE)] >> 6
        if packet.is_keyframe and kind != INTRA:
            return None
        if kind == BIDIRECTIONAL:
            order.append(place)
        else:
            order += held
            held = [place]
    if not held:
        return None
    ranks = {place: rank for rank, place in enumerate(order + held)}
    for place, packet in enumerate(packets):
        packet.pts = ranks.get(place)
    return list(ranks)
