package javax.xml.bind;

import java.util.Base64;

/**
 * The one method of JAXB that KCL calls: in its log message for an aggregated record whose keys it cannot read.
 *
 * Java 11 removed JAXB, and KCL does not bring it along. Without this class the call ends in a NoClassDefFoundError,
 * which KCL does not catch: the shard is read again from the same record for ever.
 */
public final class DatatypeConverter {
    private DatatypeConverter() {}

    public static String printBase64Binary(byte[] data) {
        return Base64.getEncoder().encodeToString(data);
    }
}
