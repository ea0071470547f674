import java.nio.ByteBuffer;
import java.util.Arrays;

/** What the peers in Java share: a cell's rolling window, and when there is something to tell of it. */
public final class Cell {
    public static final int WINDOW_DAYS = 30;
    private static final int BYTES = Integer.BYTES * (2 + 2 * WINDOW_DAYS);

    private int newest = Integer.MIN_VALUE;
    private int told = Integer.MIN_VALUE;
    private final int[] tested = new int[WINDOW_DAYS];
    private final int[] failed = new int[WINDOW_DAYS];

    /** Count an inspection; true when the cell has come under the target on that day, or out again. */
    public boolean count(int day, boolean fails, int[] limits) {
        if (newest == Integer.MIN_VALUE || day >= newest + WINDOW_DAYS) {
            Arrays.fill(tested, 0);
            Arrays.fill(failed, 0);
        } else {
            for (int fresh = newest + 1; fresh <= day; fresh++) {
                tested[fresh % WINDOW_DAYS] = 0;
                failed[fresh % WINDOW_DAYS] = 0;
            }
        }
        newest = day;
        tested[day % WINDOW_DAYS]++;
        if (fails) {
            failed[day % WINDOW_DAYS]++;
        }
        boolean below = failed() >= limits[tested()];
        if (below == (told == day)) {
            return false;
        }
        told = below ? day : Integer.MIN_VALUE;
        return true;
    }

    public int tested() {
        return sum(tested);
    }

    public int failed() {
        return sum(failed);
    }

    private static int sum(int[] days) {
        int total = 0;
        for (int day : days) {
            total += day;
        }
        return total;
    }

    public boolean below() {
        return told == newest;
    }

    public byte[] toBytes() {
        ByteBuffer out = ByteBuffer.allocate(BYTES).putInt(newest).putInt(told);
        for (int day = 0; day < WINDOW_DAYS; day++) {
            out.putInt(tested[day]).putInt(failed[day]);
        }
        return out.array();
    }

    public static Cell fromBytes(byte[] bytes) {
        Cell cell = new Cell();
        if (bytes == null) {
            return cell;
        }
        ByteBuffer in = ByteBuffer.wrap(bytes);
        cell.newest = in.getInt();
        cell.told = in.getInt();
        for (int day = 0; day < WINDOW_DAYS; day++) {
            cell.tested[day] = in.getInt();
            cell.failed[day] = in.getInt();
        }
        return cell;
    }
}
