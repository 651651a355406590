package tidewatch.events;

import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;

/**
 * The networks that count as inside. What is not an IP address (a MAC, a name) is not outside: without an address
 * that routes, nothing left the network. Names are never resolved. Flink's decoder and Pinot's ask the same class.
 */
public final class Networks implements Serializable {
    private static final long serialVersionUID = 1L;
    private static final long NO_ADDRESS = -1;
    private final int[] prefixes4;
    private final int[] masks4;
    private final byte[][] prefixes6;
    private final int[] lengths6;

    public Networks(List<String> networks) {
        prefixes4 = new int[(int) networks.stream().filter(n -> n.indexOf(':') < 0).count()];
        masks4 = new int[prefixes4.length];
        prefixes6 = new byte[networks.size() - prefixes4.length][];
        lengths6 = new int[prefixes6.length];
        int n4 = 0;
        int n6 = 0;
        for (String network : networks) {
            String[] parts = network.split("/");
            byte[] text = parts[0].getBytes(StandardCharsets.US_ASCII);
            long four = parse4(text, 0, text.length);
            byte[] address = four == NO_ADDRESS ? parse6(text, 0, text.length)
                    : new byte[] {(byte) (four >> 24), (byte) (four >> 16), (byte) (four >> 8), (byte) four};
            if (address == null) {
                throw new IllegalArgumentException("not a network: " + network);
            }
            int length = parts.length > 1 ? Integer.parseInt(parts[1]) : address.length * 8;
            if (address.length == 4) {
                masks4[n4] = length == 0 ? 0 : -1 << (32 - length);
                prefixes4[n4] = toInt(address, 0) & masks4[n4];
                n4++;
            } else {
                prefixes6[n6] = address;
                lengths6[n6++] = length;
            }
        }
    }

    /** True if the text is an IP address in none of the inside networks. */
    public boolean isOutside(byte[] bytes, int from, int length) {
        long four = parse4(bytes, from, length);
        if (four != NO_ADDRESS) {
            return !inside4((int) four);
        }
        byte[] address = parse6(bytes, from, length);
        if (address == null) {
            return false;
        }
        boolean mapped = address[10] == -1 && address[11] == -1;
        for (int i = 0; i < 10 && mapped; i++) {
            mapped = address[i] == 0;
        }
        return mapped ? !inside4(toInt(address, 12)) : !inside6(address);
    }

    private boolean inside4(int address) {
        for (int i = 0; i < prefixes4.length; i++) {
            if ((address & masks4[i]) == prefixes4[i]) {
                return true;
            }
        }
        return false;
    }

    private boolean inside6(byte[] address) {
        for (int i = 0; i < prefixes6.length; i++) {
            int whole = lengths6[i] / 8;
            int rest = lengths6[i] % 8;
            boolean same = true;
            for (int b = 0; b < whole && same; b++) {
                same = address[b] == prefixes6[i][b];
            }
            if (same && (rest == 0 || (address[whole] ^ prefixes6[i][whole]) >> (8 - rest) == 0)) {
                return true;
            }
        }
        return false;
    }

    private static long parse4(byte[] bytes, int from, int length) {
        if (length < 7 || length > 15) {
            return NO_ADDRESS;
        }
        long address = 0;
        int part = -1;
        int dots = 0;
        for (int i = from; i < from + length; i++) {
            int digit = bytes[i] - '0';
            if (digit >= 0 && digit <= 9) {
                part = part < 0 ? digit : part * 10 + digit;
                if (part > 255) {
                    return NO_ADDRESS;
                }
            } else if (bytes[i] == '.' && part >= 0 && dots < 3) {
                address = address << 8 | part;
                part = -1;
                dots++;
            } else {
                return NO_ADDRESS;
            }
        }
        return dots == 3 && part >= 0 ? address << 8 | part : NO_ADDRESS;
    }

    /** The 16 bytes of an IPv6 address (RFC 4291, section 2.2; a zone after % is left out), or null. */
    private static byte[] parse6(byte[] bytes, int from, int length) {
        if (length < 2 || length > 64) {
            return null;
        }
        int end = from;
        while (end < from + length && bytes[end] != '%') {
            end++;
        }
        byte[] address = new byte[16];
        int n = 0;
        int gap = -1;
        int i = from;
        if (bytes[i] == ':') {
            if (end - from < 2 || bytes[i + 1] != ':') {
                return null;
            }
            gap = 0;
            i += 2;
        }
        while (i < end) {
            int start = i;
            int value = 0;
            while (i < end && i - start < 5 && Character.digit(bytes[i], 16) >= 0) {
                value = value << 4 | Character.digit(bytes[i++], 16);
            }
            if (i < end && bytes[i] == '.') {
                long four = parse4(bytes, start, end - start);
                if (four == NO_ADDRESS || n > 12) {
                    return null;
                }
                for (int shift = 24; shift >= 0; shift -= 8) {
                    address[n++] = (byte) (four >> shift);
                }
                break;
            }
            if (i == start || i - start > 4 || n > 14) {
                return null;
            }
            address[n++] = (byte) (value >> 8);
            address[n++] = (byte) value;
            if (i == end) {
                break;
            }
            if (bytes[i++] != ':' || i == end) {
                return null;
            }
            if (bytes[i] == ':') {
                if (gap >= 0) {
                    return null;
                }
                gap = n;
                i++;
            }
        }
        if (gap < 0) {
            return n == 16 ? address : null;
        }
        if (n > 14) {
            return null;
        }
        System.arraycopy(address, gap, address, 16 - (n - gap), n - gap);
        Arrays.fill(address, gap, 16 - (n - gap), (byte) 0);
        return address;
    }

    private static int toInt(byte[] b, int at) {
        return (b[at] & 0xff) << 24 | (b[at + 1] & 0xff) << 16 | (b[at + 2] & 0xff) << 8 | b[at + 3] & 0xff;
    }
}
