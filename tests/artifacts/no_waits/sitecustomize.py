"""Make Python processes with this folder on their path retry at once; the Hub's client would wait for minutes."""

import time

sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
