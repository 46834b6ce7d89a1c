import time

import billiard
from billiard.exceptions import TimeLimitExceeded

if __name__ == "__main__":
    with billiard.Pool(2) as pool:
        print(pool.map(abs, [-1, 2, -3]))
        try:
            pool.apply_async(time.sleep, (3600,), timeout=0.5).get()
        except TimeLimitExceeded as error:
            print("stopped:", repr(error))
