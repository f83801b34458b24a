/* Example.java - connects to Valkey and requires a good staple:
 *
 *   javac StapledTls.java Example.java && java Example HOST PORT CA-FILE
 *
 * SPDX-License-Identifier: BSD-3-Clause */

import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.security.cert.PKIXRevocationChecker.Option;
import java.util.EnumSet;
import javax.net.ssl.*;

class Example {
    public static void main(String[] args) throws Exception {
        KeyStore trust = KeyStore.getInstance(KeyStore.getDefaultType());
        trust.load(null, null);
        trust.setCertificateEntry(
            "ca", CertificateFactory.getInstance("X.509").generateCertificate(new FileInputStream(args[2])));
        SSLContext context = StapledTls.context(trust, EnumSet.of(Option.ONLY_END_ENTITY));
        // Jedis: DefaultJedisClientConfig.builder().ssl(true).sslSocketFactory(context.getSocketFactory())
        SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(args[0], Integer.parseInt(args[1]));
        SSLParameters parameters = socket.getSSLParameters();
        parameters.setEndpointIdentificationAlgorithm("HTTPS"); // compares the host name
        socket.setSSLParameters(parameters);
        socket.getOutputStream().write("PING\r\n".getBytes());
        System.out.println(new String(socket.getInputStream().readNBytes(5)));
    }
}
