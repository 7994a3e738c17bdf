"""A real RTSP server, run by the system's own Python: GStreamer's. A process of its own, so that it can be killed.

    /usr/bin/python3 rtsp_server.py PORT FEED [USER:PASSWORD]

/cam    plays what comes in as an MPEG transport stream over UDP at port FEED (`ffmpeg -re -f mpegts udp://127.0.0.1:FEED`)
/out    takes what is published (H.264 and AAC), /mute H.264 alone
        what it takes is sent on as transport streams over UDP, the picture to port FEED + 1, the sound to FEED + 2
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

port, feed = int(sys.argv[1]), int(sys.argv[2])
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(str(port))
mounts = server.get_mount_points()

UDP = "udpsrc port={} address=127.0.0.1 buffer-size=2000000 ! tsdemux latency=0"  # a keyframe of a loud picture bursts
VIDEO = "queue ! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96"
SOUND = "queue ! aacparse ! rtpmp4gpay name=pay1 pt=97"
OUT = "mpegtsmux alignment=7 ! udpsink host=127.0.0.1 port={} sync=false async=false"
# Picture and sound have a multiplexer each: one for both waits for ever where their clocks differ.
TAKE_VIDEO = f"rtph264depay name=depay0 ! h264parse config-interval=-1 ! {OUT}".format(feed + 1)
TAKE_SOUND = f"rtpmp4gdepay name=depay1 ! aacparse ! {OUT}".format(feed + 2)


def add(path, launch, record=False):
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch)
    factory.set_shared(True)
    factory.set_latency(0)
    if record:
        factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    if len(sys.argv) > 3:
        rights = GstRtspServer.RTSPPermissions()
        rights.add_permission_for_role("user", GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS, True)
        rights.add_permission_for_role("user", GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, True)
        factory.set_permissions(rights)
    mounts.add_factory(path, factory)


add("/cam", f"( {UDP.format(feed)} name=d d. ! {VIDEO} d. ! {SOUND} )")
add("/out", f"( {TAKE_VIDEO} {TAKE_SOUND} )", record=True)
add("/mute", f"( {TAKE_VIDEO} )", record=True)
if len(sys.argv) > 3:
    user, password = sys.argv[3].split(":")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), GstRtspServer.RTSPToken())
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
if not server.attach(None):
    sys.exit(f"port {port} is taken")
print("ready", flush=True)
GLib.MainLoop().run()
