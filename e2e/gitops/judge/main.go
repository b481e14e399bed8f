// Command judge says what GitOps tools make of objects, by the code that those tools run themselves: Flux's library of
// the kstatus rules, and the Lua machine of Argo CD.
//
// It reads a JSON array of questions from standard input and writes an array of as many answers to standard output:
//
//	{"ask": "kstatus",   "object": {…}}                  -> {"status": "Current", "message": "…"}
//	{"ask": "health",    "object": {…}, "script": "…"}   -> {"status": "Healthy", "message": "…"}
//	{"ask": "discovery", "object": {…}, "script": "…"}   -> {"actions": {"reconcile": {"disabled": false}}}
//	{"ask": "action",    "object": {…}, "script": "…"}   -> {"object": {…}}
//
// A question that has no answer gives {"error": "…"}.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Ask    string                     `json:"ask"`
	Object *unstructured.Unstructured `json:"object"`
	Script string                     `json:"script"`
}

type answer struct {
	Status  string                     `json:"status,omitempty"`
	Message string                     `json:"message,omitempty"`
	Actions map[string]action          `json:"actions,omitempty"`
	Object  *unstructured.Unstructured `json:"object,omitempty"`
	Error   string                     `json:"error,omitempty"`
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		fail("reading the questions", err)
	}
	answers := make([]answer, len(questions))
	for i, q := range questions {
		given, err := answerTo(q)
		if err != nil {
			given = answer{Error: err.Error()}
		}
		answers[i] = given
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		fail("writing the answers", err)
	}
}

func answerTo(q question) (answer, error) {
	if q.Object == nil {
		return answer{}, fmt.Errorf("%s: no object", q.Ask)
	}
	switch q.Ask {
	case "kstatus":
		result, err := status.Compute(q.Object)
		if err != nil {
			return answer{}, err
		}
		return answer{Status: result.Status.String(), Message: result.Message}, nil
	case "health":
		return health(q.Object, q.Script)
	case "discovery":
		return discovery(q.Object, q.Script)
	case "action":
		return act(q.Object, q.Script)
	default:
		return answer{}, fmt.Errorf("unknown question %q", q.Ask)
	}
}

func fail(doing string, err error) {
	fmt.Fprintf(os.Stderr, "judge: %s: %v\n", doing, err)
	os.Exit(1)
}
