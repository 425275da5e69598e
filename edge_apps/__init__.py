"""What an app is written with, and the apps that come with Covey."""
