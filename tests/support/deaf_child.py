"""A child process for the tests of ChildPool: it says that it is ready and then reads nothing."""

import os
import pickle
import time

if __name__ == "__main__":
    ready = pickle.dumps("ready")
    os.write(1, len(ready).to_bytes(8, "big") + ready)
    time.sleep(60)
