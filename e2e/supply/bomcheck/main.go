// Command bomcheck reads a CycloneDX list from standard input with CycloneDX's own library, holds it to CycloneDX's own
// schema, and prints what it read: one JSON object a line for each component.
//
// Its argument is the folder with the schemas.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/xeipuuv/gojsonschema"
)

type component struct {
	Type     string `json:"type"`
	Name     string `json:"name"`
	Version  string `json:"version"`
	PURL     string `json:"purl,omitempty"`
	License  string `json:"license,omitempty"`
	SHA256   string `json:"sha256,omitempty"`
	NeededBy int    `json:"neededBy"`
}

func main() {
	if err := check(); err != nil {
		fmt.Fprintf(os.Stderr, "bomcheck: %v\n", err)
		os.Exit(1)
	}
}

func check() error {
	if len(os.Args) != 2 {
		return errors.New("usage: bomcheck SCHEMAS <BOM")
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if err := conform(os.Args[1], text); err != nil {
		return err
	}
	bom := new(cyclonedx.BOM)
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(text), cyclonedx.BOMFileFormatJSON).Decode(bom); err != nil {
		return fmt.Errorf("reading the list: %w", err)
	}
	neededBy, err := follow(bom)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, c := range *bom.Components {
		read := component{
			Type: string(c.Type), Name: c.Name, Version: c.Version, PURL: c.PackageURL, NeededBy: neededBy[c.BOMRef],
		}
		if c.Licenses != nil && len(*c.Licenses) == 1 {
			read.License = (*c.Licenses)[0].Expression
		}
		if c.Hashes != nil {
			for _, hash := range *c.Hashes {
				if hash.Algorithm == cyclonedx.HashAlgoSHA256 {
					read.SHA256 = hash.Value
				}
			}
		}
		if err := out.Encode(read); err != nil {
			return err
		}
	}
	return nil
}

// conform holds the list to the schema of CycloneDX 1.6, with the schemas that it refers to.
func conform(folder string, text []byte) error {
	loader := gojsonschema.NewSchemaLoader()
	for address, file := range map[string]string{
		"http://cyclonedx.org/schema/spdx.schema.json":     "spdx.schema.json",
		"http://cyclonedx.org/schema/jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		schema, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			return err
		}
		if err := loader.AddSchema(address, gojsonschema.NewBytesLoader(schema)); err != nil {
			return fmt.Errorf("loading %s: %w", file, err)
		}
	}
	schema, err := os.ReadFile(filepath.Join(folder, "bom-1.6.schema.json"))
	if err != nil {
		return err
	}
	compiled, err := loader.Compile(gojsonschema.NewBytesLoader(schema))
	if err != nil {
		return fmt.Errorf("loading the schema of 1.6: %w", err)
	}
	result, err := compiled.Validate(gojsonschema.NewBytesLoader(text))
	if err != nil {
		return fmt.Errorf("reading the list: %w", err)
	}
	var wrong []error
	for _, found := range result.Errors() {
		wrong = append(wrong, errors.New(found.String()))
	}
	return errors.Join(wrong...)
}

// follow walks the dependencies: each end of an edge must be a component or the image, and every component must be needed.
// It counts by how many each is needed.
func follow(bom *cyclonedx.BOM) (map[string]int, error) {
	if bom.Components == nil || bom.Dependencies == nil || bom.Metadata == nil || bom.Metadata.Component == nil {
		return nil, errors.New("the list has no image, no components or no dependencies")
	}
	known := map[string]bool{bom.Metadata.Component.BOMRef: true}
	for _, c := range *bom.Components {
		if known[c.BOMRef] {
			return nil, fmt.Errorf("%s is listed twice", c.BOMRef)
		}
		known[c.BOMRef] = true
	}
	neededBy := map[string]int{}
	for _, edge := range *bom.Dependencies {
		if !known[edge.Ref] {
			return nil, fmt.Errorf("%s depends on something and is no component", edge.Ref)
		}
		if edge.Dependencies == nil {
			continue
		}
		for _, needed := range *edge.Dependencies {
			if !known[needed] {
				return nil, fmt.Errorf("%s depends on %s, which is no component", edge.Ref, needed)
			}
			neededBy[needed]++
		}
	}
	for _, c := range *bom.Components {
		if neededBy[c.BOMRef] == 0 {
			return nil, fmt.Errorf("nothing needs %s", c.BOMRef)
		}
	}
	return neededBy, nil
}
