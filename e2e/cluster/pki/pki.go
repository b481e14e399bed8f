// Package pki makes the embedded cluster's certificates, keys and kubeconfigs.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A test cluster is thrown away long before this; a backdated start forgives
// a machine whose clock steps back a little.
const (
	validFor  = 365 * 24 * time.Hour
	backdated = time.Hour
)

// authority is one certificate authority, with its key in memory.
type authority struct {
	certificate *x509.Certificate
	pem         []byte
	key         *ecdsa.PrivateKey
}

// leaf says what one certificate is for.
type leaf struct {
	file   string // base name under the directory
	by     *authority
	name   string
	groups []string
	server bool // serves TLS under `hosts`
	client bool
}

// Main writes every authority, certificate, ServiceAccount key and
// kubeconfig of the cluster into a directory that must not hold any yet.
func Main(args []string) error {
	flags := flag.NewFlagSet("pki", flag.ContinueOnError)
	dir := flags.String("dir", "", "directory to write to")
	server := flags.String("server", "", "URL of the API server, as clients reach it")
	node := flags.String("node", "", "name of the node")
	hosts := flags.String("hosts", "", "names and addresses of the servers, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" || *server == "" || *node == "" || *hosts == "" {
		return fmt.Errorf("pki needs --dir, --server, --node and --hosts")
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}

	cluster, err := newAuthority(*dir, "ca", "sealedenv-cluster")
	if err != nil {
		return err
	}
	etcd, err := newAuthority(*dir, "etcd-ca", "sealedenv-etcd")
	if err != nil {
		return err
	}
	frontProxy, err := newAuthority(*dir, "front-proxy-ca", "sealedenv-front-proxy")
	if err != nil {
		return err
	}
	if err := writeServiceAccountKey(*dir); err != nil {
		return err
	}

	names := strings.Split(*hosts, ",")
	leaves := []leaf{
		{file: "apiserver", by: cluster, name: "kube-apiserver", server: true},
		{file: "kubelet-server", by: cluster, name: "system:node:" + *node, groups: []string{"system:nodes"}, server: true},
		{file: "apiserver-kubelet-client", by: cluster, name: "kube-apiserver-kubelet-client", groups: []string{"kubeadm:cluster-admins", "system:masters"}, client: true},
		{file: "etcd", by: etcd, name: "etcd", server: true, client: true},
		{file: "apiserver-etcd-client", by: etcd, name: "kube-apiserver", client: true},
		{file: "front-proxy-client", by: frontProxy, name: "front-proxy-client", client: true},
	}
	for _, one := range leaves {
		certificate, key, err := one.issue(names)
		if err != nil {
			return err
		}
		if err := writeFile(*dir, one.file+".crt", certificate, 0o644); err != nil {
			return err
		}
		if err := writeFile(*dir, one.file+".key", key, 0o600); err != nil {
			return err
		}
	}

	users := []leaf{
		{file: "admin", name: "sealedenv-admin", groups: []string{"system:masters"}},
		{file: "controller-manager", name: "system:kube-controller-manager"},
		{file: "scheduler", name: "system:kube-scheduler"},
		{file: "kubelet", name: "system:node:" + *node, groups: []string{"system:nodes"}},
		{file: "kube-proxy", name: "system:kube-proxy"},
		{file: "cluster-dns", name: "system:kube-dns"},
	}
	for _, user := range users {
		user.by, user.client = cluster, true
		if err := writeKubeconfig(*dir, *server, user); err != nil {
			return err
		}
	}
	return nil
}

func newAuthority(dir, file, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := template(name, nil)
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	made := &authority{certificate: certificate, pem: encode("CERTIFICATE", der), key: key}
	if err := writeFile(dir, file+".crt", made.pem, 0o644); err != nil {
		return nil, err
	}
	return made, writeFile(dir, file+".key", keyPEM, 0o600)
}

func template(name string, groups []string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: groups},
		NotBefore:    now.Add(-backdated),
		NotAfter:     now.Add(validFor),
	}, nil
}

func (l leaf) issue(hosts []string) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template, err := template(l.name, l.groups)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if l.client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if l.server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		for _, host := range hosts {
			if address := net.ParseIP(host); address != nil {
				template.IPAddresses = append(template.IPAddresses, address)
			} else {
				template.DNSNames = append(template.DNSNames, host)
			}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, l.by.certificate, private.Public(), l.by.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(private)
	return encode("CERTIFICATE", der), key, err
}

func writeKubeconfig(dir, server string, user leaf) error {
	certificate, key, err := user.issue(nil)
	if err != nil {
		return err
	}
	const cluster = "sealedenv"
	config := clientcmdapi.NewConfig()
	config.Clusters[cluster] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: user.by.pem}
	config.AuthInfos[user.file] = &clientcmdapi.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key}
	config.Contexts[cluster] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: user.file}
	config.CurrentContext = cluster
	text, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return writeFile(dir, user.file+".kubeconfig", text, 0o600)
}

func writeServiceAccountKey(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := encodeKey(key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writeFile(dir, "sa.key", private, 0o600); err != nil {
		return err
	}
	return writeFile(dir, "sa.pub", encode("PUBLIC KEY", der), 0o644)
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return encode("EC PRIVATE KEY", der), err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writeFile never replaces a file: keys that something runs with must not change under it.
func writeFile(dir, name string, content []byte, mode os.FileMode) error {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := file.Write(content); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}
