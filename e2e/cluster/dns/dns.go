// Package dns is the embedded cluster's DNS server: it knows Services and nothing else.
package dns

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	clusterDomain = "cluster.local."
	recordTTL     = 5 // seconds, as in CoreDNS' Kubernetes plugin
)

// Main answers `<service>.<namespace>.svc.cluster.local` with the Service's
// address, or with its pods' where it has none. Other names do not exist: the
// cluster has no way out of the machine.
func Main(args []string) error {
	flags := flag.NewFlagSet("cluster-dns", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "path of the kubeconfig")
	listen := flags.String("listen", "", "UDP and TCP address to answer on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	factory := informers.NewSharedInformerFactory(client, 0)
	names := &resolver{
		services: factory.Core().V1().Services().Lister(),
		slices:   factory.Discovery().V1().EndpointSlices().Lister(),
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())

	packets, err := net.ListenPacket("udp", *listen)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	go names.serveTCP(streams)
	go func() {
		<-ctx.Done()
		packets.Close()
		streams.Close()
	}()
	fmt.Println("answering on", *listen)
	return names.serveUDP(packets)
}

type resolver struct {
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

func (r *resolver) serveUDP(conn net.PacketConn) error {
	buffer := make([]byte, 4096)
	for {
		size, peer, err := conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // one peer's ICMP error is no reason to stop answering
		}
		if answer, ok := r.answer(buffer[:size]); ok {
			_, _ = conn.WriteTo(answer, peer)
		}
	}
}

// answer builds the response to one query; a packet that is no query gets none.
func (r *resolver) answer(packet []byte) ([]byte, bool) {
	var parser dnsmessage.Parser
	header, err := parser.Start(packet)
	if err != nil || header.Response {
		return nil, false
	}
	question, err := parser.Question()
	if err != nil {
		return nil, false
	}
	addresses, code := r.lookup(question.Name.String())

	builder := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: header.ID, Response: true, Authoritative: true,
		RecursionDesired: header.RecursionDesired, RCode: code,
	})
	builder.EnableCompression()
	if builder.StartQuestions() != nil || builder.Question(question) != nil || builder.StartAnswers() != nil {
		return nil, false
	}
	if question.Type == dnsmessage.TypeA || question.Type == dnsmessage.TypeALL {
		resource := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: recordTTL}
		for _, address := range addresses {
			if builder.AResource(resource, dnsmessage.AResource{A: address}) != nil {
				return nil, false
			}
		}
	}
	message, err := builder.Finish()
	return message, err == nil
}

// lookup knows `service.namespace.svc` and, for headless Services,
// `hostname.service.namespace.svc`. A name that exists with no address of the
// asked family gets an empty success, as the protocol wants.
func (r *resolver) lookup(name string) ([][4]byte, dnsmessage.RCode) {
	relative, inside := strings.CutSuffix(strings.ToLower(name), ".svc."+clusterDomain)
	if !inside {
		return nil, dnsmessage.RCodeNameError
	}
	parts := strings.Split(relative, ".")
	var host string
	if len(parts) == 3 {
		host, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 {
		return nil, dnsmessage.RCodeNameError
	}
	service, err := r.services.Services(parts[1]).Get(parts[0])
	if apierrors.IsNotFound(err) {
		return nil, dnsmessage.RCodeNameError
	}
	if err != nil {
		return nil, dnsmessage.RCodeServerFailure
	}
	var texts []string
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		texts = r.endpoints(service, host)
	} else if host == "" {
		texts = service.Spec.ClusterIPs
	}
	addresses := ipv4(texts)
	if host != "" && len(addresses) == 0 {
		return nil, dnsmessage.RCodeNameError
	}
	return addresses, dnsmessage.RCodeSuccess
}

func (r *resolver) endpoints(service *corev1.Service, host string) []string {
	of := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service.Name})
	slices, err := r.slices.EndpointSlices(service.Namespace).List(of)
	if err != nil {
		return nil
	}
	var addresses []string
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			named := host == "" || endpoint.Hostname != nil && *endpoint.Hostname == host
			if named && (ready || service.Spec.PublishNotReadyAddresses) {
				addresses = append(addresses, endpoint.Addresses...)
			}
		}
	}
	return addresses
}

func ipv4(texts []string) [][4]byte {
	var addresses [][4]byte
	for _, text := range texts {
		if address, err := netip.ParseAddr(text); err == nil && address.Is4() {
			addresses = append(addresses, address.As4())
		}
	}
	return addresses
}

func (r *resolver) serveTCP(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go r.serveStream(conn)
	}
}
