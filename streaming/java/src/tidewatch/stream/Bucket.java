package tidewatch.stream;

import org.apache.flink.table.functions.ScalarFunction;

/** The bucket of a device: what the stream knows of devices is kept in buckets, so that models can be told to each of them. */
public final class Bucket extends ScalarFunction {
    private static final long serialVersionUID = 1L;
    /** Many more than there will be slots, so that each slot has about as many. */
    static final int BUCKETS = 1024;

    public Integer eval(String deviceId) {
        return deviceId == null ? 0 : Math.floorMod(deviceId.hashCode() * 0x9E3779B9 >>> 16, BUCKETS);
    }
}
