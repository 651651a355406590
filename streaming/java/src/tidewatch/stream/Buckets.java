package tidewatch.stream;

import org.apache.flink.table.functions.TableFunction;

/** Every bucket that {@link Bucket} may name, a row each. */
public final class Buckets extends TableFunction<Integer> {
    private static final long serialVersionUID = 1L;

    public void eval() {
        for (int bucket = 0; bucket < Bucket.BUCKETS; bucket++) {
            collect(bucket);
        }
    }
}
