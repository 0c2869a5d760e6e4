"""Every Python process that has this folder on its path retries at once: the Hub's client waits minutes otherwise."""

import time

sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
