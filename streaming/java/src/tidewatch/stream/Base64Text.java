package tidewatch.stream;

import java.util.Base64;

import org.apache.flink.table.functions.ScalarFunction;

/** BYTES as base64 text: Flink's own TO_BASE64 takes only texts. */
public final class Base64Text extends ScalarFunction {
    private static final long serialVersionUID = 1L;

    public String eval(byte[] bytes) {
        return bytes == null ? "" : Base64.getEncoder().encodeToString(bytes);
    }
}
