"""The apps that come with Covey; each is also an example of how to write one."""

NAMES = ("sensor_sim", "system")
