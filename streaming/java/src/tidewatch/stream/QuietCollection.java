package tidewatch.stream;

import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.lang.management.MemoryUsage;

/**
 * Collects the old generation of ParallelGC in the quiet after a close of windows.
 *
 * <p>What windows held of their minute is garbage once they are closed, but too old for the young generation. Left alone, the
 * old one fills in two minutes or so, as a rule while the next windows close and much is moved there: a pause of half a
 * second just when everybody waits for scores. So it is collected some seconds after a close, if half of what the last
 * collection left free is taken: state that stays, however large, is no reason to look for garbage. Other collectors,
 * and a stream that catches up and is never quiet, are left alone.
 */
final class QuietCollection {
    private static final String OLD = "PS Old Gen";
    private static final long QUIET_MS = 15_000;
    private static final double FULL = 0.5;

    /** When windows closed last, and nothing was looked at since; 0: never. */
    private static volatile long closed;
    private static int users;
    private static Thread watch;

    private QuietCollection() {}

    static void windowsClosed() {
        closed = System.currentTimeMillis();
    }

    /** One user more; the first starts the watch. */
    static synchronized void open() {
        users++;
        if (watch != null) {
            return;
        }
        for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans()) {
            if (pool.getName().equals(OLD)) {
                watch = new Thread(() -> watch(pool), "quiet-collection");
                watch.setDaemon(true);
                watch.start();
            }
        }
    }

    /** One user less; the last ends the watch. */
    static synchronized void close() {
        users--;
        if (users == 0 && watch != null) {
            watch.interrupt();
            watch = null;
        }
    }

    private static void watch(MemoryPoolMXBean old) {
        try {
            while (true) {
                Thread.sleep(1000);
                long at = closed;
                if (at != 0 && System.currentTimeMillis() - at > QUIET_MS) {
                    closed = 0;
                    long stays = old.getCollectionUsage().getUsed();
                    MemoryUsage now = old.getUsage();
                    if (now.getUsed() - stays > FULL * (now.getMax() - stays)) {
                        System.gc();
                    }
                }
            }
        } catch (InterruptedException e) {
            // the job ends
        }
    }
}
